"""One module per table, with ``needs(experiment)`` and ``build(results)``; registry.py lists them."""
