"""The last step of every log line: a thread writes it, so that a slow reader delays only the log."""

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, TextIO

MOST_BYTES: Final = 4 * 1024 * 1024
"""Size of the buffer for a slow reader: half a minute of a storm. Lines beyond it are dropped and counted."""

CHUNK_LINES: Final = 500
"""Lines written at once; as many are lost at most if a write fails."""

FLUSH_SECONDS: Final = 2.0
"""Time for which the exit of the process waits for a reader that has stopped reading."""


class LogWriter:
    """Writes lines in order to the file behind `stream`; `write` never blocks and never fails.

    Lines are dropped, and counted in `dropped`, while the buffer is full, when a write fails, and when standard error
    was closed before the process began. `on_resumed` is called in the writer's thread with the number dropped once a
    write succeeds again. A stream in memory is written to at once. A writer's thread that died is replaced.
    """

    def __init__(self, stream: TextIO, *, on_resumed: Callable[[int], None]) -> None:
        self.dropped = 0
        self._stream = stream
        self._on_resumed = on_resumed
        self._unread = getattr(stream, "name", None) == os.devnull
        self._file = _duplicate(stream)
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._missing = 0
        self._thread: threading.Thread | None = None

    def write(self, line: str) -> None:
        """Queue a line for writing."""
        if self._unread:
            self.dropped += 1
            return
        if self._file is None:
            self._write_at_once(line)
            return
        encoded = f"{line}\n".encode(errors="backslashreplace")
        with self._changed:
            if self._bytes + len(encoded) > MOST_BYTES:
                self._drop(1)
                return
            self._lines.append(encoded)
            self._bytes += len(encoded)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, args=(self._file,), name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, within_seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until every line is written, `within_seconds` at most; return whether that succeeded."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, within_seconds)

    def _run(self, file: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                lines = [self._lines.popleft() for _ in range(min(CHUNK_LINES, len(self._lines)))]
            written = False
            try:
                written = _write_all(file, b"".join(lines))
            finally:  # lines that end the thread are no longer waited for
                with self._changed:
                    self._bytes -= sum(map(len, lines))
                    if not written:
                        self._drop(len(lines))
                    missing, self._missing = (self._missing, 0) if written else (0, self._missing)
                    self._changed.notify_all()
            if missing:
                self._on_resumed(missing)

    def _write_at_once(self, line: str) -> None:
        try:
            self._stream.write(f"{line}\n")
            self._stream.flush()
        except (OSError, ValueError):
            self._drop(1)

    def _drop(self, lines: int) -> None:
        self.dropped += lines
        self._missing += lines


def _duplicate(stream: TextIO) -> int | None:
    """Duplicate the descriptor of the stream's file, so that nothing else closes or reuses it; None if it has none."""
    try:
        stream.flush()
        return os.dup(stream.fileno())
    except (io.UnsupportedOperation, OSError, ValueError):
        return None


def _write_all(file: int, chunk: bytes) -> bool:
    """Write everything, waiting for the reader as long as it takes; return whether that succeeded."""
    rest = memoryview(chunk)
    while rest:
        try:
            rest = rest[os.write(file, rest) :]
        except BlockingIOError:  # another process has made the file non-blocking
            select.select([], [file], [])
        except OSError:
            return False
    return True
