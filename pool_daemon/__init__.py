"""Decommissions workloads the second their capacity pool runs out."""

__version__ = "1.0.0"
