"""One module per claim, with ``needs(experiment)`` and ``build(results)``; registry.py lists them."""
