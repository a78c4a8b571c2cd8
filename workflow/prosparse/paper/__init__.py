"""Tables, figures, claims and the results page, from JSON and CSV, without torch."""
