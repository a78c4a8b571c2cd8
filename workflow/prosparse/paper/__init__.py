"""Tables, figures, claims and the results page. Reads JSON and CSV; imports neither torch nor transformers."""
