"""Plays one trace against each strategy in turns, and makes the bill."""
