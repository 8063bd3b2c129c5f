"""The application's modules: which may import which is in `pyproject.toml`."""

import gc

# What is imported stays. With Python's own thresholds the collector would look for garbage three hundred times until
# all is imported, a seventh of what the start of a process takes; and at a request most of its work would be to walk
# through our own modules.
gc.set_threshold(50_000, 50, 1000)
