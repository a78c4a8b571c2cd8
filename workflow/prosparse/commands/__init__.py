"""User commands that work on a checkpoint and text, without the workflow."""
