"""What the user's commands do with a checkpoint and text, without the workflow."""
