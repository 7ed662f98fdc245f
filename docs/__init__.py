"""The template's own documentation, and what builds it."""
