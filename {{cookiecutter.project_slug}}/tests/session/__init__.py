"""The session layer: a file for each thing that it guarantees."""
