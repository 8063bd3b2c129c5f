"""One trace, played against each strategy in turns, and the bill."""
