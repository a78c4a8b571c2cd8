"""The typed experiment: one module per section of a config file, and what follows from a config alone."""
