"""From a source of text to packed token rows and the mixtures that training draws from."""
