"""Half a minute that shows the daemon at work: a real mongod, the real daemon, a verdict on what it did."""
