"""Errors that a user can act on, printed as one line without a traceback."""

#: Exit status of a step that used up its time budget: the same command continues it. sysexits' "temporary failure".
OUT_OF_TIME = 75


class UserError(Exception):
    """An error that the user can fix."""


class ConfigError(UserError, ValueError):
    """An unusable config or input; the message names the key or file and the allowed values."""


class EngineMissing(UserError):
    """Another engine, or a tool to build it, is not installed; the message says what to install."""
