"""Build models from a config, or load a checkpoint, hub id or GGUF file safely."""
