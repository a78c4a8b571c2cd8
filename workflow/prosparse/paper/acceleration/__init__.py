"""``acceleration.md``: where the paper's speedup comes from, and what ours is."""
