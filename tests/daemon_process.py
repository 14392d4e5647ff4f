"""The daemon as its users run it: a process with an environment, a log and an exit code."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, ClassVar, Self

from deadline import wait_until

from pool_daemon.harness import cpu_seconds, environment

Record = dict[str, Any]

STOP_SECONDS = 30
"""More than the daemon gives itself to stop in order."""


class DaemonProcess:
    """One `pool-daemon run`; a context manager that kills what is left of it. Without `uri` it has a mongod of its own.

    Its log is read by a thread as it comes, so that the daemon never waits for a reader.
    """

    program: ClassVar[Sequence[str]] = ("-m", "pool_daemon", "run")

    def __init__(self, *arguments: str, uri: str | None, database_name: str, **settings: str) -> None:
        self.records: list[Record] = []
        self.unreadable_lines: list[str] = []
        self._arguments = arguments
        address = {} if uri is None else {"DATABASE__URI": uri}
        self._environment = environment(DATABASE__NAME=database_name, **address, **settings)
        self._process: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read_log, name="log of the daemon", daemon=True)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, *self.program, *self._arguments],
            env=self._environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
        )
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        if self.process.stderr:
            self.process.stderr.close()
        if kind is not None:
            sys.stderr.writelines(f"{line}\n" for line in self.log_lines())

    @property
    def process(self) -> subprocess.Popen[str]:
        """The process; it must have been started."""
        if self._process is None:
            raise RuntimeError("the daemon has not been started")
        return self._process

    @property
    def is_running(self) -> bool:
        """Tell whether the process is alive."""
        return self.process.poll() is None

    def cpu_seconds(self) -> float:
        """Read how much processor time the process has used so far."""
        return cpu_seconds(self.process.pid)

    def stop(self) -> None:
        """Ask the daemon to stop, as systemd and Kubernetes do, and hold it to exit code 0.

        Not before its first word: until then it is an interpreter that starts, which any signal ends.
        """
        self.wait_for_first_word(within_seconds=STOP_SECONDS)
        self.process.terminate()
        self.wait_for_exit()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process where it stands, as a paused virtual machine or a debugger does, and let it go on after."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def wait_for_exit(self, *, code: int = 0) -> None:
        """Wait for the process to end by itself with that exit code."""
        ended_with = self.process.wait(STOP_SECONDS)
        assert ended_with == code, "\n".join([f"exit code {ended_with}", *self.log_lines()])

    def wait_for_log(self, condition: Callable[[Record], object], *, within_seconds: float, what: str) -> None:
        """Wait for a record of the log."""
        wait_until(
            lambda: any(condition(record) for record in list(self.records)),
            within_seconds=within_seconds,
            what=what,
        )

    def wait_for_first_word(self, *, within_seconds: float) -> None:
        """Wait until the daemon has said anything: before that, its process is no daemon yet."""
        self.wait_for_log(bool, within_seconds=within_seconds, what="the daemon's first word")

    def wait_for_mention(self, number: int, *, within_seconds: float = 15) -> None:
        """Wait for a record of the log that names a pool or a workload by its number."""
        self.wait_for_log(
            lambda record: str(number) in json.dumps(record),
            within_seconds=within_seconds,
            what=f"{number} in the log",
        )

    def said(self, event: str) -> list[Record]:
        """List the records of the log that tell of such an event."""
        return [record for record in list(self.records) if record["event"] == event]

    def complaints(self) -> list[Record]:
        """List the records of the log that are warnings or worse."""
        return [record for record in self.records if record.get("level") not in ("debug", "info")]

    def log_lines(self) -> list[str]:
        """List what the daemon said, one line a record."""
        return [*map(json.dumps, self.records), *self.unreadable_lines]

    def _read_log(self) -> None:
        for line in self.process.stderr or ():
            try:
                self.records.append(json.loads(line))
            except json.JSONDecodeError:
                self.unreadable_lines.append(line.rstrip())


@contextmanager
def running_daemon(*arguments: str, uri: str | None, database_name: str, **settings: str) -> Iterator[DaemonProcess]:
    """Run a daemon that must stop in order at the end, having logged nothing but JSON."""
    with DaemonProcess(*arguments, uri=uri, database_name=database_name, **settings) as daemon:
        yield daemon
        daemon.stop()
        assert daemon.unreadable_lines == []
