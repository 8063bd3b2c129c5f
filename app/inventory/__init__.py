"""Inventory: write-through. The stock of each SKU, and the adjustments made with an idempotency key."""
