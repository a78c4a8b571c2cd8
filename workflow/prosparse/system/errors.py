"""Errors that a user can act on: the command line prints them as one line, without a traceback."""


class UserError(Exception):
    """Something the user can fix."""


class ConfigError(UserError, ValueError):
    """A config or input that cannot be used; the message names the key or file and the allowed values."""
