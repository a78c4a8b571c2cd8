"""``acceleration.md``: where the paper's speedup comes from, and how large ours is."""
