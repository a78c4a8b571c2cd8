"""Trains one stage with the Hugging Face Trainer, in one process or many."""
