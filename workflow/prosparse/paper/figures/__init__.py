"""One module per figure: ``needs(experiment)`` and ``build(results)``."""
