"""One stage of training on the Hugging Face Trainer, in one process or many."""
