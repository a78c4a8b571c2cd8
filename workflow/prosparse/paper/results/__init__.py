"""The experiment's measurements, read from the files that its jobs wrote."""
