"""Services that are made from the template."""
