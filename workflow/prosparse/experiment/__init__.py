"""The typed experiment: one module per config section, and everything that the config alone determines."""
