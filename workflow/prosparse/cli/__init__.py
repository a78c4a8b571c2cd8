"""The command line: one module per group of commands, arguments next to their handlers.

A command imports what it needs when it runs, since importing torch takes seconds. Its options are its parameters, so
there may be many.
"""
