"""Infrastructure that every step shares: files, locks, errors, devices, provenance."""
