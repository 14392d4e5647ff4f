import io
import json
import logging
import os
import pty
import re
import select
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from pool_daemon.plain_text import mask_credentials
from pool_daemon.telemetry.log_writer import LogWriter
from pool_daemon.telemetry.logs import configure_logs, dropped_lines, flush_logs, set_level

URI = "mongodb://daemon:hunter2@db-1,db-2/?replicaSet=explorer"

log = structlog.get_logger("pool_daemon.test")


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("pool_daemon")
    before = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:], root.level, ours.level = before[0], before[1], before[2]
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def events(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def fail_with(uri: str) -> None:
    """Raise with the address in the text, in the cause's text, and in a local variable."""
    try:
        Path(f"/nowhere/{uri}").read_text()
    except OSError as error:
        raise ValueError(f"cannot use {uri}") from error


def test_an_event_is_one_line_of_json_that_begins_with_what_is_read_first(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    log.info("pool_expired", pool_id=7, workloads=[1, 2], empty_at=2**63 - 1, late_seconds=0.25)
    [event] = events(stream)
    assert list(event)[:4] == ["timestamp", "level", "logger", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event.pop("timestamp"))
    assert event == {
        "level": "info",
        "logger": "pool_daemon.test",
        "event": "pool_expired",
        "pool_id": 7,
        "workloads": [1, 2],
        "empty_at": 2**63 - 1,
        "late_seconds": 0.25,
    }


def test_numbers_that_json_lacks_and_objects_of_any_kind_are_still_json(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    log.info("odd", nan=float("nan"), inf=[float("inf")], path=Path("/x"), error=KeyError("k"), keys={1: None})
    [event] = events(stream)
    assert (event["nan"], event["inf"], event["path"]) == ("nan", ["inf"], "/x")
    assert event["keys"] == {"1": None}


def test_a_console_shows_control_characters_as_their_codes_and_json_escapes_them(stream: io.StringIO) -> None:
    configure_logs("console", "info", stream)
    log.warning("pool_unreadable", pool="\x1b[2J\nFORGED", reason="\u202eabc", nested={"a": "\x1b"})
    logging.getLogger("pymongo").warning("theirs \x1b[2J\nFORGED")
    written = stream.getvalue()
    assert written.count("\n") == 2
    assert not {"\x1b", "\u202e"} & set(written)
    assert r"pool=\x1b[2J\nFORGED" in written


def test_a_traceback_on_a_console_keeps_its_lines_and_nothing_else(stream: io.StringIO) -> None:
    configure_logs("console", "info", stream)
    try:
        fail_with("\x1b[2J")
    except ValueError:
        log.exception("failed")
    assert "\x1b" not in stream.getvalue()
    assert stream.getvalue().splitlines()[-1] == r"ValueError: cannot use \x1b[2J"


def test_an_id_is_told_no_longer_than_people_read(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    log.warning("workload_unreadable", workload="A" * 300_000, pool={"a": "B" * 300_000})
    assert len(stream.getvalue()) < 700


@pytest.mark.parametrize("name", ["apscheduler.scheduler", "pymongo.command", "motor", "asyncio"])
def test_libraries_speak_in_the_same_form_and_only_from_warning_up(stream: io.StringIO, name: str) -> None:
    configure_logs("json", "debug", stream)
    library = logging.getLogger(name)
    library.debug("chatter")
    library.info("chatter")
    library.warning("node %s is gone", "db-1")
    [event] = events(stream)
    assert (event["level"], event["logger"], event["event"]) == ("warning", name, "node db-1 is gone")
    assert "timestamp" in event


def test_warnings_of_python_are_logged(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("it will be gone in 4.0", DeprecationWarning, stacklevel=1)
    [event] = events(stream)
    assert event["logger"] == "py.warnings"
    assert "DeprecationWarning: it will be gone in 4.0" in event["event"]


def test_the_level_can_be_changed_while_the_daemon_runs(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    log.debug("unheard")
    set_level("debug")
    log.debug("heard")
    set_level("error")
    log.warning("unheard")
    logging.getLogger("motor").warning("unheard")
    assert [event["event"] for event in events(stream)] == ["heard"]


def test_configured_again_nothing_is_said_twice(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    configure_logs("json", "info", stream)
    log.info("once")
    assert len(events(stream)) == 1


def test_lines_whose_reader_has_left_are_dropped_and_counted() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as broken:
        configure_logs("json", "info", broken)
        log.info("into_the_void")
        logging.getLogger("motor").error("into_the_void")
        flush_logs()
    assert dropped_lines() == 2


def fill(pipe: int) -> None:
    """Write empty lines into a pipe until it holds no more."""
    os.set_blocking(pipe, False)
    with suppress(BlockingIOError):
        while True:
            os.write(pipe, b"\n" * select.PIPE_BUF)
    os.set_blocking(pipe, True)


def test_a_reader_who_does_not_read_keeps_nobody_waiting_and_hears_what_was_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pool_daemon.telemetry.log_writer.MOST_BYTES", 100_000)
    reader, writer = os.pipe()
    fill(writer)  # else the daemon may get rid of some lines in the midst of the storm, and tell then of those dropped
    with os.fdopen(writer, "w") as pipe, os.fdopen(reader) as unread:
        configure_logs("json", "info", pipe)
        began_at = time.monotonic()
        for number in range(10_000):
            log.info("storm", number=number, text="x" * 100)
        assert time.monotonic() - began_at < 20
        assert dropped_lines() > 1000
        entries = (json.loads(line) for line in unread if line.strip())
        read = [next(entries)]
        while read[-1]["event"] != "log_lines_dropped":
            read.append(next(entries))
        numbers = [event["number"] for event in read[:-1]]
        assert numbers == sorted(numbers)
        assert len(numbers) + dropped_lines() == 10_000
        assert sum(event["lines"] for event in read[-1:]) <= dropped_lines()
        flush_logs()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_dies_loses_what_it_held_and_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> bool:
        raise MemoryError

    with (tmp_path / "log").open("w") as file, monkeypatch.context() as patch:
        patch.setattr("pool_daemon.telemetry.log_writer._write_all", out_of_memory)
        writer = LogWriter(file, on_resumed=lambda _: None)
        writer.write("lost")
        assert writer.flush()
        assert writer.dropped == 1
        assert writer._thread is not None
        writer._thread.join()
        patch.undo()
        writer.write("said")
        assert writer.flush()
    assert (tmp_path / "log").read_text() == "said\n"


def test_where_standard_error_was_closed_every_line_is_counted_as_dropped() -> None:
    with Path(os.devnull).open("w") as void:
        configure_logs("json", "info", void)
        log.info("unheard")
        assert dropped_lines() == 1


def test_a_line_is_written_before_the_flush_returns(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        configure_logs("json", "info", file)
        for number in range(1000):
            log.info("said", number=number)
        flush_logs()
    assert len((tmp_path / "log").read_text().splitlines()) == 1000


def test_the_handlers_of_others_stay(stream: io.StringIO) -> None:
    theirs = logging.NullHandler()
    logging.getLogger().addHandler(theirs)
    configure_logs("json", "info", stream)
    assert theirs in logging.getLogger().handlers


def test_a_traceback_in_json_has_frames_and_causes_but_neither_locals_nor_credentials(stream: io.StringIO) -> None:
    configure_logs("json", "info", stream)
    try:
        fail_with(URI)
    except ValueError:
        log.exception("pass_failed", uri=URI)
    [event] = events(stream)
    assert event["level"] == "error"
    failed, cause = event["exception"]
    assert (failed["exc_type"], failed["exc_value"]) == (
        "ValueError",
        "cannot use mongodb://********@db-1,db-2/?replicaSet=explorer",
    )
    assert cause["exc_type"] == "FileNotFoundError"
    assert failed["frames"][-1]["name"] == "fail_with"
    assert "hunter2" not in stream.getvalue()
    assert "locals" not in failed["frames"][0]


def test_a_traceback_of_a_library_is_as_safe(stream: io.StringIO) -> None:
    for form in ("json", "console"):
        configure_logs(form, "info", stream)
        try:
            fail_with(URI)
        except ValueError:
            logging.getLogger("asyncio").exception("task died on %s", URI)
    assert stream.getvalue().count("fail_with") >= 2
    assert "hunter2" not in stream.getvalue()


def test_the_console_shows_a_plain_traceback_without_credentials(stream: io.StringIO) -> None:
    configure_logs("console", "info", stream)
    try:
        fail_with(URI)
    except ValueError:
        log.exception("pass_failed", details={"uri": [URI]})
    said = stream.getvalue()
    assert "pass_failed" in said
    assert "ValueError: cannot use mongodb://********@db-1" in said
    assert "in fail_with" in said
    assert "hunter2" not in said
    assert "\x1b[" not in said


def test_auto_is_json_where_nobody_watches_and_console_on_a_terminal() -> None:
    unwatched = io.StringIO()
    configure_logs("auto", "info", unwatched)
    log.info("said")
    assert events(unwatched)[0]["event"] == "said"

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        configure_logs("auto", "info", terminal)
        log.info("said")
        flush_logs()
        said = os.read(ours, 4096).decode()
    os.close(ours)
    assert "said" in said
    assert not said.startswith("{")


def test_a_line_for_journald_begins_with_its_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure_logs("json", "debug", journal)
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
        log.error("e", exc_info=ValueError("f"))
        logging.getLogger("motor").critical("g")
        flush_logs()
        journal.seek(0)
        lines = journal.read().splitlines()
    assert [line[:4] for line in lines] == ["<7>{", "<6>{", "<4>{", "<3>{", "<3>{", "<2>{"]


def test_on_the_console_every_line_for_journald_has_its_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w+") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        configure_logs("console", "info", journal)
        try:
            fail_with(URI)
        except ValueError:
            log.exception("pass_failed")
        flush_logs()
        journal.seek(0)
        lines = journal.read().splitlines()
    assert len(lines) > 5
    assert all(line.startswith("<3>") for line in lines)


def test_an_inherited_journal_stream_marks_nothing(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "8:1234")
    configure_logs("json", "info", stream)
    log.info("said")
    assert stream.getvalue().startswith("{")


@pytest.mark.parametrize(
    ("said", "masked"),
    [
        ("see mongodb://u:p@h/x now", "see mongodb://********@h/x now"),
        ("mongodb+srv://u:p@h", "mongodb+srv://********@h"),
        ("'mongodb:/u:p@h'", "'mongodb:/********@h'"),
        ("mongodb://u:p@ss/w@h", "mongodb://********@h"),
        ("mongodb://h1,h2/?replicaSet=r", "mongodb://h1,h2/?replicaSet=r"),
        ("?tlsCertificateKeyFilePassword=p&tls=true", "?tlsCertificateKeyFilePassword=********&tls=true"),
        ("nothing@all", "nothing@all"),
        ("MongoDB://u:p@h", "MongoDB://********@h"),
        ("a mongodb://u:p@h mongodb://v:q@i", "a mongodb://********@h mongodb://********@i"),
        (
            "must look like mongodb://USER:PASSWORD@HOST/?OPTIONS",
            "must look like mongodb://USER:PASSWORD@HOST/?OPTIONS",
        ),
    ],
)
def test_credentials_are_masked_wherever_they_stand(said: str, masked: str) -> None:
    assert mask_credentials(said) == masked


@given(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=8))
def test_no_password_survives_masking(password: str) -> None:
    assert password not in mask_credentials(f"cannot reach mongodb://daemon:{password}@db: refused")
