"""What an experiment costs, and what would stop it, before its first job."""
