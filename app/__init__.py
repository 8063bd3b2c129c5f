"""Fourways: the four caching strategies in front of a database."""

VERSION = "0.1.0"
"""The same as in pyproject.toml."""
