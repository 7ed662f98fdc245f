"""The service's tests: features here, the session layer in `session`."""
