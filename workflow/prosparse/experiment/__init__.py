"""The typed experiment: one module per config section, and what follows from it."""
