"""Inventory: the stock of each SKU, and the adjustments that were made with an idempotency key."""
