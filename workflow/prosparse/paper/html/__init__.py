"""``index.html``: the results as one page for a browser, which needs no network"""
