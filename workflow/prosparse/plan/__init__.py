"""What an experiment costs and what would stop it, found before its first job starts."""
