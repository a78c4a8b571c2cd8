"""Text generation with sparse models."""
