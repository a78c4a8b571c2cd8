"""Paired differences with their 95% intervals."""
