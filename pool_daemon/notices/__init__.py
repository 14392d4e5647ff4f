"""Notices: told before a pool runs empty, and of its end; written to an outbox, from which receivers are served."""
