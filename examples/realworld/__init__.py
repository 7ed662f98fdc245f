"""RealWorld's backend, Conduit."""
