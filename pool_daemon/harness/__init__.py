"""The real daemon as a process that is started and watched: for the demo, the benchmark and the tests."""

from pool_daemon.harness.daemon_process import DaemonProcess, Entry, logged_at
from pool_daemon.harness.environment import environment
from pool_daemon.harness.process_stats import cpu_seconds

__all__ = ["DaemonProcess", "Entry", "cpu_seconds", "environment", "logged_at"]
