"""Read the experiment's measurements from the files that its jobs wrote."""
