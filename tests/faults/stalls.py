"""Daemons whose event loop stands still at the test's word."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from urllib.request import urlopen

from daemon_process import DaemonProcess
from deadline import wait_until

STALL_SECONDS = 5
ANSWER_SECONDS = 10


class StallingDaemon(DaemonProcess):
    """A daemon that may be stalled, and that tells how many tasks it has."""

    program: ClassVar[Sequence[str]] = ("-P", str(Path(__file__).with_name("stalling_daemon.py")), str(STALL_SECONDS))

    def stall(self) -> float:
        """Block the loop; return until when, in unix seconds, it is blocked at least."""
        self.process.send_signal(signal.SIGUSR1)
        return time.time() + STALL_SECONDS

    def seconds_to_answer(self) -> float:
        """Ask for the metrics, which are told by a thread of their own; return how long that took."""
        at = self.said("http_listening")[0]
        asked_at = time.monotonic()
        with urlopen(f"http://{at['host']}:{at['port']}/metrics", timeout=STALL_SECONDS) as answer:
            assert answer.status == 200
        return time.monotonic() - asked_at

    def count_tasks(self) -> int:
        """Ask how many tasks there are in the loop."""
        told = len(self.said("tasks"))
        self.process.send_signal(signal.SIGUSR2)
        wait_until(lambda: len(self.said("tasks")) > told, within_seconds=ANSWER_SECONDS, what="the number of tasks")
        return int(self.said("tasks")[-1]["count"])
