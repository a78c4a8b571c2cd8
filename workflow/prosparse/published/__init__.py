"""The paper as data: its tables as printed, its models' shapes and its claims. Imports nothing from the project."""
