"""The paper's method: pure, usable alone on any gated-FFN model."""
