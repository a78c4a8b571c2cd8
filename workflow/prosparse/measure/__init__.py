"""Measurements on a (checkpoint, activation) pair."""
