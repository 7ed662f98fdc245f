"""Who writes and reads."""
