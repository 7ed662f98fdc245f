"""Services that a measurement compares the rendered shop with, each written by hand."""
