"""One module per section of the page."""
