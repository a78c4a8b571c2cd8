"""The paper as data: tables as printed, model shapes and claims. Imports no other package of the project."""
