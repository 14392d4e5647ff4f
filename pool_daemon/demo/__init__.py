"""The demo, half a minute long: a real mongod, the real daemon, a verdict on the daemon."""
