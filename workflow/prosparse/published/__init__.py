"""The paper as data: tables as printed, model shapes and claims."""
