"""When things happen: the alarm, the watcher that can move it, and the pass that it rings for."""
