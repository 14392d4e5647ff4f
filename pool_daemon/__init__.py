"""Stops what drains a capacity pool at the second the pool runs empty."""

__version__ = "1.0.0"
