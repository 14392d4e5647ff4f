import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pool_daemon import __version__
from pool_daemon.cli import main
from pool_daemon.commands import COMMANDS, build_parser
from pool_daemon.errors import ExitCode
from pool_daemon.settings import Settings, example_toml

URI = "mongodb://daemon:hunter2@db-1/?replicaSet=explorer"


@pytest.fixture(autouse=True)
def no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("POOL_DAEMON_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


def pool_daemon(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pool_daemon", *arguments]
    return subprocess.run(command, check=False, text=True, capture_output=True, timeout=60, **options)


def test_without_a_command_the_help_is_shown_as_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: pool-daemon" in shown.err


def test_the_help_lists_every_command_with_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == ExitCode.OK
    shown = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert re.search(rf"^ +{name} +{command.summary.split()[0]}\b", shown, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["version", "--nonsense"], ["version", "x"]])
def test_a_command_line_that_makes_no_sense_is_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "pool-daemon" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == ExitCode.OK
    assert f"pool-daemon {name}" in capsys.readouterr().out.split("examples:")[1]


ACTIONS = [
    "pools list",
    "pools next",
    "pools show",
    "reservations new",
    "reservations sign",
    "reservations verify",
    "reservations submit",
    "reservations apply",
    "reservations list",
    "reservations show",
    "pools create",
    "pools top-up",
    "pools what-if",
    "workloads add",
    "events list",
    "events export",
    "orders list",
    "explain pool",
    "explain workload",
    "brake status",
    "brake release",
    "quarantine list",
    "quarantine release",
    "policy list",
    "policy set",
    "policy unset",
]


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_has_help_with_an_example_of_its_own(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*action.split(), "--help"]) == ExitCode.OK
    examples = capsys.readouterr().out.split("examples:")[1].split("\n")[1:-1]
    assert examples
    assert all(f"pool-daemon {action}" in example for example in examples)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_prints_data_can_print_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = [action for action in ACTIONS if action.startswith(f"{name} ")] or [name]
    for command in words:
        main([*command.split(), "--help"])
        assert ("--json" in capsys.readouterr().out) == (name not in ("run", "demo", "completion"))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_understood(name: str) -> None:
    parser = build_parser(loaded=COMMANDS)
    for example in COMMANDS[name].load().EXAMPLES:
        command_line = re.search(rf"pool-daemon ({name}.*?)( [|>] |  |\)|$)", example)
        assert command_line, example
        assert parser.parse_args(shlex.split(command_line[1])).run is not None


def test_version_is_told_in_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == ExitCode.OK
    assert main(["--version"]) == ExitCode.OK
    assert capsys.readouterr().out == f"pool-daemon {__version__}\n" * 2
    assert main(["version", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["pool-daemon"] == __version__
    assert {"python", "motor", "pymongo"} < told.keys()


def test_version_and_help_import_nothing_heavy() -> None:
    script = (
        "import sys; from pool_daemon.cli import main; main(['version']); main(['--help']); "
        "print(*sorted({'pydantic', 'structlog', 'motor', 'pymongo', 'rich', 'asyncio'} & sys.modules.keys()), "
        "file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", script], check=True, text=True, capture_output=True, timeout=60)
    assert run.stderr == "\n"


def test_check_config_shows_each_setting_with_its_place_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[log]\nlevel = "debug"\n')
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", URI)
    assert main(["check-config", "--config", str(config)]) == ExitCode.OK
    shown = capsys.readouterr().out
    assert re.search(r'^uri = "\*+" +# environment variable POOL_DAEMON_DATABASE__URI$', shown, re.MULTILINE)
    assert re.search(rf'^level = "debug" +# file {config}$', shown, re.MULTILINE)
    assert re.search(r"^# folder is not set +# default$", shown, re.MULTILINE)
    assert "hunter2" not in shown


def test_check_config_tells_the_same_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", URI)
    assert main(["check-config", "--json"]) == ExitCode.OK
    shown = capsys.readouterr().out
    told = json.loads(shown)
    assert told["database"]["uri"]["from"] == "environment variable POOL_DAEMON_DATABASE__URI"
    assert told["expiry"]["max_sleep_seconds"] == {"value": 60.0, "from": "default"}
    assert told.keys() == Settings.model_fields.keys()
    assert "hunter2" not in shown


def test_the_text_of_check_config_can_be_used_as_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config"]) == ExitCode.OK
    config = tmp_path / "config.toml"
    config.write_text(capsys.readouterr().out)
    assert main(["check-config", "--config", str(config)]) == ExitCode.OK


def test_check_config_prints_the_example_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--example"]) == ExitCode.OK
    assert capsys.readouterr().out == example_toml()


def test_wrong_settings_end_in_one_line_each_and_their_own_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POOL_DAEMON_LOG__LEVEL", "loud")
    monkeypatch.setenv("POOL_DAEMON_DATABASE__URI", "mysql://daemon:hunter2@db")
    assert main(["check-config"]) == ExitCode.CONFIGURATION
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert [line.split()[1] for line in lines] == ["database.uri", "log.level"]
    assert all(line.startswith("pool-daemon: ") for line in lines)
    assert "hunter2" not in shown.err


def test_an_address_given_where_a_path_belongs_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", "--config", "mongodb://daemon:hunter2@db"]) == ExitCode.CONFIGURATION
    assert "hunter2" not in capsys.readouterr().err


def test_a_bug_ends_in_a_traceback_and_its_own_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    # No process can be given such an argument, so nothing guards against it: it stands for any bug.
    assert main(["check-config", "--config", "a\0b"]) == ExitCode.INTERNAL
    assert "Traceback" in capsys.readouterr().err


def test_the_module_is_the_command() -> None:
    told = pool_daemon("version")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"pool-daemon {__version__}\n", "")
    refused = pool_daemon("check-config", "--config", "/nowhere.toml")
    assert refused.returncode == ExitCode.CONFIGURATION
    assert refused.stderr == "pool-daemon: /nowhere.toml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["check-config"], ["completion", "bash"], ["--help"], ["version"]])
def test_a_reader_that_leaves_early_is_no_error(arguments: list[str], unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "pool_daemon", *arguments]
    environ = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    left = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, env=environ, timeout=60)
    os.close(writing)
    assert (left.returncode, left.stderr) == (ExitCode.OK, b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", [["check-config"], ["completion", "bash"], ["version"]])
def test_a_full_disk_under_standard_output_is_said_in_one_line(arguments: list[str], unbuffered: str) -> None:
    command = [sys.executable, "-m", "pool_daemon", *arguments]
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            command,
            check=False,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
            timeout=60,
        )
    assert ended.returncode == ExitCode.FAILED
    assert ended.stderr == "pool-daemon: standard output cannot be written: no space left on its disk\n"


def test_an_interrupt_ends_a_short_command_quietly(tmp_path: Path) -> None:
    fifo = tmp_path / "config.toml"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "pool_daemon", "check-config", "--config", str(fifo)]
    # Our end opens once the command has opened its own, and so waits for us to write.
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process, fifo.open("wb"):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (ExitCode.FORCED, b"")


def test_bash_completes_commands_and_their_options(tmp_path: Path) -> None:
    script = tmp_path / "completion"
    script.write_text(pool_daemon("completion", "bash").stdout)

    def completed(*words: str) -> set[str]:
        ask = (
            f"source {script}; COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_shtab_pool_daemon; echo "${COMPREPLY[@]}"'
        )
        return set(subprocess.check_output(["bash", "-c", ask], text=True, timeout=60).split())  # noqa: S607

    assert completed("pool-daemon", "che") == {"check-config"}
    assert completed("pool-daemon", "check-config", "--c") == {"--config"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_every_shell_gets_completions_of_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == ExitCode.OK
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)


@pytest.mark.parametrize(
    "arguments",
    [["run", URI], [URI], ["pools", "show", URI], ["pools", "list", "--owner", URI], ["run", "--config", URI]],
)
def test_an_address_on_the_command_line_is_repeated_without_its_password(arguments: list[str]) -> None:
    shown = pool_daemon(*arguments)
    assert shown.returncode in {ExitCode.USAGE, ExitCode.CONFIGURATION}
    assert "hunter2" not in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    "setting", ["HTTP__HOST", "LEASE__IDENTITY", "DATABASE__NAME", "HTTP__PORT", "EMBEDDED__FOLDER"]
)
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_address_in_another_setting_is_shown_without_its_password(setting: str, form: list[str]) -> None:
    shown = pool_daemon("check-config", *form, env=os.environ | {f"POOL_DAEMON_{setting}": URI})
    assert "hunter2" not in shown.stdout + shown.stderr


def test_a_usage_error_shows_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "\x1b[2J"]) == ExitCode.USAGE
    assert r"unrecognized arguments: \x1b[2J" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "usage"), [(["run", "--foo"], "run"), (["pools", "list", "--foo"], "pools list")]
)
def test_a_wrong_option_of_a_command_brings_the_usage_of_that_command(
    arguments: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"usage: pool-daemon {usage} [-h]")


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809", "1" * 5000, "x", "1.5"])
@pytest.mark.parametrize(
    "action",
    [["pools", "show"], ["pools", "list", "--owner"], ["quarantine", "release"], ["brake", "release"]],
    ids=" ".join,
)
def test_an_id_that_the_database_cannot_hold_is_a_usage_error(
    action: list[str], number: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*action, number]) == ExitCode.USAGE
    shown = capsys.readouterr().err.splitlines()
    assert shown[-1].endswith("must be a whole number from -9223372036854775808 to 9223372036854775807")


def test_a_mongod_that_is_not_there_is_told_by_the_name_of_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--plain", "--mongod", "/nope"]) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err.startswith("pool-daemon: there is no /nope: correct --mongod, or leave it out")


def test_a_command_that_waits_for_its_database_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        environment = os.environ | {
            "POOL_DAEMON_DATABASE__URI": f"mongodb://daemon:hunter2@{address}/",
            "POOL_DAEMON_DATABASE__SERVER_SELECTION_SECONDS": "3",
            "POOL_DAEMON_DATABASE__TIMEOUT_SECONDS": "3",
        }
        shown = pool_daemon("pools", "list", env=environment)
    assert shown.returncode == ExitCode.UNAVAILABLE
    assert shown.stderr.splitlines()[0] == f"pool-daemon: waiting for MongoDB at mongodb://********@{address}/"
