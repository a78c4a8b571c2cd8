"""One module per claim: ``needs(experiment)`` and ``build(results)``."""
