"""The paper's method, usable on its own with any gated-FFN model."""
