"""The performance of the daemon, compared with the method without it and with the server's limit."""
