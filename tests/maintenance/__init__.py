"""Maintenance, in the steps of docs/operate.md: on real stores, with the service as it is run."""
