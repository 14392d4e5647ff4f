"""The way of a pool: what is due, in batches, and one pass over it."""
