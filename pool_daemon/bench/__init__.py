"""How good the daemon is, measured beside what a user has without it and beside what the server can do at most."""
