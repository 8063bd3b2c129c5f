"""Page views: the counters, the ledger of the batches applied to them, and the views that could not be applied."""
