"""The daemon's outputs: logs, metrics, health, status."""
