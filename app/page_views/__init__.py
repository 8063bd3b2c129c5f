"""Page views: the counters, the ledger of the batches that were applied to them, and what could not be applied."""
