"""The entry point: reads the command line, runs one command, and returns its exit code."""

import errno
import os
import select
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress

from pool_daemon import signals_blocked
from pool_daemon.commands import build_parser
from pool_daemon.errors import ExitCode, PoolDaemonError
from pool_daemon.plain_text import escaped, escaped_lines, mask_credentials


def main(argv: Sequence[str] | None = None) -> ExitCode:
    """Run the command that `argv` names and return its exit code.

    By default these are the arguments of the process, which then ends at once with that code. The interpreter is not
    taken apart first: that waits for threads of the driver, of which one may wait for an answer for minutes, and what
    it finds on the way, such as a future that nobody awaited, is logged where no thread can write it any more, which
    waits for ever. What counts is done and written by then.
    """
    exit_code = _outcome(argv)
    if argv is None:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # closed, or its reader has left
                stream.flush()
        os._exit(exit_code)
    return exit_code


def _outcome(argv: Sequence[str] | None) -> ExitCode:
    _open_missing_streams()
    try:
        exit_code = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except PoolDaemonError as error:
        for line in str(error).split("\n"):
            print(f"pool-daemon: {mask_credentials(escaped(line))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.FORCED
    except SystemExit:  # rich exits like this when the reader has left; it has dealt with standard output
        return ExitCode.OK
    except Exception as error:  # noqa: BLE001 - the last resort: a bug must still end in its exit code
        return _ended_by(error)
    return exit_code


def _ended_by(error: Exception) -> ExitCode:
    """Print an unexpected error, unless it only means that the reader of the output has left."""
    if isinstance(error, BrokenPipeError) and _reader_has_left():
        return ExitCode.OK
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and error.filename is None:
        print("pool-daemon: standard output cannot be written: no space left on its disk", file=sys.stderr)
        _discard_output()
        return ExitCode.FAILED
    print(mask_credentials(escaped_lines(traceback.format_exc())), file=sys.stderr)
    return ExitCode.INTERNAL


def _dispatch(argv: Sequence[str]) -> ExitCode:
    # No option before the command takes a value, so the first word that is no option is the command.
    chosen = next((word for word in argv if not word.startswith("-")), "")
    with signals_blocked.held_back() if chosen == "run" else nullcontext():
        return _run(chosen, argv)


def _run(chosen: str, argv: Sequence[str]) -> ExitCode:
    parser = build_parser(loaded={chosen})
    try:
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    except SystemExit as finished:  # argparse has printed everything
        return ExitCode.USAGE if finished.code else ExitCode.OK
    if arguments.run is None:
        parser.print_help(sys.stderr)
        return ExitCode.USAGE
    exit_code: ExitCode = arguments.run(arguments)
    return exit_code


def _open_missing_streams() -> None:
    """Replace standard streams that were closed, so that no socket is opened under their descriptors."""
    for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w", encoding="utf-8"))  # noqa: SIM115, PTH123


def _reader_has_left() -> bool:
    """Return whether the broken pipe is standard output (`| head`); if so, discard all further output."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    _discard_output()
    return True


def _discard_output() -> None:
    """Redirect standard output to nowhere: flushing its buffer at exit would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
