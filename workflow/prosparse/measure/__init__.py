"""What is measured on a (checkpoint, activation) pair."""
