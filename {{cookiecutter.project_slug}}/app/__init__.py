"""A service with a database."""
