"""Tables, figures, claims and the page: reads JSON and CSV, imports neither torch nor transformers."""
