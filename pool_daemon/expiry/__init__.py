"""Expiry: what is due, how it is cut into batches, and the passes that settle it."""
