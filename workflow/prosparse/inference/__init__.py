"""Generating text with a sparse model."""
