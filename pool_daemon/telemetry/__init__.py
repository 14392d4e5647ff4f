"""What the daemon tells the outside: logs, metrics, health."""
