"""The service's tests: features here, the rules of the session layer in `session`."""
