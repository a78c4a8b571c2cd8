"""One module per table: ``needs(experiment)`` and ``build(results)``."""
