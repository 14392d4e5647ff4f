"""Reconciliation: pools compared with their workloads, and delete orders that went missing, in the background."""
