"""One module per figure, with ``needs(experiment)`` and ``build(results)``; registry.py lists them."""
