"""One file for each group of rules of the session layer."""
