"""Turn text sources into packed token rows, and into the mixtures that training draws from."""
