"""Models: built from a config, opened from a checkpoint, a hub id or a GGUF file, and refused where that is unsafe."""
