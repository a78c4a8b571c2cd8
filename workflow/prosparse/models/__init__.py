"""Build models from a config, or open them from a checkpoint, hub id or GGUF file; refuse those that are unsafe."""
