"""From text sources to packed rows of tokens, and mixtures to train on."""
