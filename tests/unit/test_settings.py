import re
import tempfile
import tomllib
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from structlog.testing import capture_logs

from pool_daemon.capacity.workload import FREE_TYPES, WorkloadType
from pool_daemon.commands import run
from pool_daemon.errors import ConfigurationError, ExitCode
from pool_daemon.settings import Database, Settings, Sources, example_toml, load_settings
from pool_daemon.settings.grace import TYPES, Grace
from pool_daemon.settings.settings import FIXED, RELOADABLE, SECTIONS

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
URI = "mongodb://daemon:hunter2@db-1,db-2/?replicaSet=explorer"

WriteConfig = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def every_field() -> Iterator[tuple[str, str, FieldInfo]]:
    for section, fields in SECTIONS.items():
        for name, field in fields.items():
            yield section, name, field


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the file of an installed daemon elsewhere; it does not exist."""
    path = tmp_path / "installed.toml"
    monkeypatch.setattr("pool_daemon.settings.sources.DEFAULT_CONFIG", path)
    return path


def complaints(config: Path | None = None, environ: Mapping[str, str] | None = None) -> list[str]:
    """Load settings that must be refused, and return the lines that say why."""
    with pytest.raises(ConfigurationError) as refused:
        load_settings(config, environ or {})
    assert refused.value.exit_code == ExitCode.CONFIGURATION
    shown = "".join(traceback.format_exception(refused.value))
    assert "hunter2" not in shown
    assert "pydantic" not in str(refused.value)
    return str(refused.value).splitlines()


def test_without_any_source_the_defaults_are_in_force() -> None:
    assert load_settings(None, {}) == Settings()


def test_settings_built_in_code_read_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POOL_DAEMON_DATABASE__NAME", "outside")
    assert Settings().database.name == "explorer"
    assert load_settings().database.name == "outside"


def test_the_environment_ranks_above_secrets_and_those_above_the_file(write_config: WriteConfig, secrets: Path) -> None:
    config = write_config('[database]\nname = "file"\ntimeout_seconds = 1\nserver_selection_seconds = 1')
    (secrets / "database__name").write_text("secret")
    (secrets / "database__timeout_seconds").write_text("2")
    environ = {"POOL_DAEMON_SECRETS_DIR": str(secrets), "POOL_DAEMON_DATABASE__NAME": "environment"}
    sources = Sources(config=config, environ=environ)
    database = sources.load().database
    assert (database.name, database.timeout_seconds, database.server_selection_seconds) == ("environment", 2, 1)
    assert sources.place_of("database", "name") == "environment variable POOL_DAEMON_DATABASE__NAME"
    assert sources.place_of("database", "timeout_seconds") == f"secret {secrets}/database__timeout_seconds"
    assert sources.place_of("database", "server_selection_seconds") == f"file {config}"
    assert sources.place_of("database", "uri") == "default"


def test_the_file_is_the_one_given_else_the_one_in_the_environment_else_that_of_an_installed_daemon(
    write_config: WriteConfig, tmp_path: Path, installed: Path
) -> None:
    def name(config: Path | None, **environ: str) -> str:
        return load_settings(config, environ).database.name

    chosen = tmp_path / "chosen.toml"
    assert name(None) == "explorer"
    installed.write_text('[database]\nname = "installed"\n')
    chosen.write_text('[database]\nname = "chosen"\n')
    given = write_config('[database]\nname = "given"\n')
    assert name(None) == "installed"
    assert name(None, POOL_DAEMON_CONFIG=str(chosen)) == "chosen"
    assert name(given, POOL_DAEMON_CONFIG=str(chosen)) == "given"
    assert name(None, POOL_DAEMON_CONFIG="") == "explorer"


def test_a_file_that_the_environment_names_has_to_exist(tmp_path: Path) -> None:
    [line] = complaints(environ={"POOL_DAEMON_CONFIG": str(tmp_path / "absent.toml")})
    assert line == f"{tmp_path}/absent.toml: cannot be read: No such file or directory"


def test_a_setting_of_two_places_is_told_with_both(write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config('[lease]\nidentity = "file"\nseconds = 5\n')
    monkeypatch.setenv("POOL_DAEMON_LEASE__IDENTITY", "unit")
    monkeypatch.setenv("POOL_DAEMON_EXPIRY__CONCURRENCY", "2")

    with capture_logs() as lines:
        settings = run.load(config)

    assert settings.lease.identity == "unit"
    (line,) = lines
    assert line["event"] == "setting_overridden"
    assert line["setting"] == "lease.identity"
    assert line["in_force"] == "environment variable POOL_DAEMON_LEASE__IDENTITY"
    assert line["without_effect"] == f"file {config}"


def test_a_secret_loses_the_newline_that_editors_leave(secrets: Path) -> None:
    (secrets / "database__uri").write_text(f"{URI}\n")
    settings = load_settings(None, {"CREDENTIALS_DIRECTORY": str(secrets)})
    assert settings.database.uri is not None
    assert settings.database.uri.get_secret_value() == URI


def test_a_secret_may_be_a_link_inside_its_folder_as_kubernetes_mounts_it(secrets: Path) -> None:
    (secrets / "..2026").mkdir()
    (secrets / "..2026" / "database__uri").write_text(URI)
    (secrets / "..data").symlink_to("..2026")
    (secrets / "database__uri").symlink_to("..data/database__uri")
    assert load_settings(None, {"POOL_DAEMON_SECRETS_DIR": str(secrets)}).database.uri is not None


def test_the_folder_chosen_for_the_daemon_ranks_above_that_of_systemd(secrets: Path, tmp_path: Path) -> None:
    (secrets / "database__name").write_text("chosen")
    environ = {"POOL_DAEMON_SECRETS_DIR": str(secrets), "CREDENTIALS_DIRECTORY": str(tmp_path / "absent")}
    assert load_settings(None, environ).database.name == "chosen"


def test_files_of_others_in_the_secrets_folder_are_left_alone(secrets: Path) -> None:
    (secrets / "tls.key").write_text("theirs")
    (secrets / "log").write_text("theirs")
    assert load_settings(None, {"CREDENTIALS_DIRECTORY": str(secrets)}) == Settings()


def test_an_unknown_secret_is_refused(secrets: Path) -> None:
    (secrets / "database__password").write_text("hunter2")
    [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(secrets)})
    assert line.startswith(f"database.password (secret {secrets}/database__password): is no setting")


def test_a_secret_that_links_out_of_its_folder_is_refused(secrets: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text(URI)
    (secrets / "database__uri").symlink_to(tmp_path / "elsewhere")
    [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(secrets)})
    assert line == f"secret {secrets}/database__uri: must be a file that lies inside the folder"


def test_a_secrets_folder_that_cannot_be_used_is_refused(secrets: Path) -> None:
    (secrets / "plain_file").write_text("x")
    for folder in (secrets / "absent", secrets / "plain_file"):
        [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(folder)})
        assert line.startswith(f"secrets folder {folder}: cannot be read: ")


def test_a_secret_that_is_not_text_is_refused(secrets: Path) -> None:
    (secrets / "database__uri").write_bytes(b"mongodb://\xff")
    [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(secrets)})
    assert line == f"secrets folder {secrets}: must hold nothing but small text files"


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    [absent] = complaints(tmp_path / "absent.toml")
    assert absent == f"{tmp_path}/absent.toml: cannot be read: No such file or directory"
    [folder] = complaints(tmp_path)
    assert folder == f"{tmp_path}: cannot be read: Is a directory"


def test_a_file_that_is_not_toml_is_refused_with_line_and_column(write_config: WriteConfig) -> None:
    [line] = complaints(write_config("[log]\nlevel = \n"))
    assert re.search(r"config\.toml: is not TOML: .*line 2, column 9", line)


def test_a_file_that_is_nested_without_end_is_refused(write_config: WriteConfig) -> None:
    [line] = complaints(write_config(f"a = {'[' * 100_000}"))
    assert line.endswith("config.toml: is nested too deeply; a section holds fields, and nothing deeper")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xff\xfe")
    [line] = complaints(tmp_path / "config.toml")
    assert line == f"{tmp_path}/config.toml: is not UTF-8 text; save it as UTF-8"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[databse]\nuri = 'mongodb://u:hunter2@h'",
            "databse.uri (file PATH): is no setting; did you mean database.uri?",
        ),
        (
            "[stream]\nsilnce_seconds = 1",
            "stream.silnce_seconds (file PATH): is no setting; did you mean stream.stall_seconds?",
        ),
        ("[zzz]\nq = 1", "zzz.q (file PATH): is no setting; remove it"),
        ("name = 'hunter2'", "name (file PATH): is no setting; remove it"),
        ("log = 'debug'", "log (file PATH): is a section; set one of its fields: format, level, detail"),
        ("[log.level]\nx = 1", "log.level (file PATH): must be one of debug, info, warning, error"),
    ],
)
def test_an_unknown_key_of_the_file_is_refused(write_config: WriteConfig, text: str, expected: str) -> None:
    config = write_config(text)
    assert complaints(config) == [expected.replace("PATH", str(config))]


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (
            "POOL_DAEMON_DATABASE__URL",
            "database.url (environment variable {}): is no setting; did you mean database.uri?",
        ),
        ("POOL_DAEMON_URI", "uri (environment variable {}): is no setting; remove it"),
        ("POOL_DAEMON_", " (environment variable {}): is no setting; remove it"),
        (
            "POOL_DAEMON_DATABASE__URI__X",
            "database.uri.x (environment variable {}): is no setting; did you mean database.uri?",
        ),
        (
            "POOL_DAEMON_LOG",
            "log (environment variable {}): is a section; set one of its fields: format, level, detail",
        ),
    ],
)
def test_a_variable_that_names_nothing_is_refused(variable: str, expected: str) -> None:
    assert complaints(environ={variable: "hunter2"}) == [expected.format(variable)]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("POOL_DAEMON_SERVICE_HOST", "10.0.0.1"),
        ("POOL_DAEMON_SERVICE_PORT_METRICS", "9464"),
        ("POOL_DAEMON_PORT", "tcp://10.0.0.1:9464"),
        ("POOL_DAEMON_HTTP_PORT", "tcp://10.0.0.1:9464"),
        ("POOL_DAEMON_METRICS_PORT_9090_TCP", "tcp://10.0.0.1:9090"),
        ("POOL_DAEMON_METRICS_PORT_9090_TCP_ADDR", "10.0.0.1"),
    ],
)
def test_variables_that_kubernetes_makes_for_a_service_are_refused_with_the_way_out(variable: str, value: str) -> None:
    [line] = complaints(environ={variable: value})
    assert "enableServiceLinks" in line


@pytest.mark.parametrize(
    ("variable", "meant"),
    [("POOL_DAEMON_HTTP_PORT", "http.port"), ("POOL_DAEMON_EMBEDDED_PORT", "embedded.port")],
)
def test_a_variable_with_one_underscore_is_no_service_of_kubernetes(variable: str, meant: str) -> None:
    [line] = complaints(environ={variable: "9"})
    assert line.endswith(f"is no setting; did you mean {meant}?")


def test_a_secret_that_cannot_be_read_is_named_itself(secrets: Path) -> None:
    (secrets / "database__name").write_text("x")
    (secrets / "database__uri").symlink_to("nowhere")
    [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(secrets)})
    assert line == f"secret {secrets}/database__uri: cannot be read: No such file or directory"


def test_a_folder_in_place_of_a_secret_is_refused_with_the_right_name(secrets: Path) -> None:
    (secrets / "database").mkdir()
    (secrets / "database" / "uri").write_text(URI)
    [line] = complaints(environ={"POOL_DAEMON_SECRETS_DIR": str(secrets)})
    assert line == f"secret {secrets}/database: is a folder; put its secrets beside it, as database__FIELD"


@pytest.mark.parametrize(
    ("file_mode", "folder_mode", "is_exposed"), [(0o644, 0o755, True), (0o640, 0o755, False), (0o644, 0o750, False)]
)
def test_an_address_that_every_user_can_read_is_noticed(
    open_folder: Path, file_mode: int, folder_mode: int, *, is_exposed: bool
) -> None:
    secrets = open_folder
    secret, config = secrets / "database__uri", secrets / "config.toml"
    secret.write_text(URI)
    config.write_text(f'[database]\nuri = "{URI}"')
    for file in (secret, config):
        file.chmod(file_mode)
    secrets.chmod(folder_mode)
    assert Sources(config=None, environ={"CREDENTIALS_DIRECTORY": str(secrets)}).exposed() == (
        secret if is_exposed else None
    )
    assert Sources(config=config, environ={}).exposed() == (config if is_exposed else None)
    assert Sources(config=None, environ={"POOL_DAEMON_DATABASE__URI": URI}).exposed() is None


def test_variables_of_others_are_left_alone() -> None:
    assert load_settings(None, {"POOL": "1", "OTHER_POOL_DAEMON_X": "1", "PATH": "/bin"}) == Settings()


def test_every_problem_has_a_line_of_its_own(write_config: WriteConfig) -> None:
    config = write_config("[expiry]\nmax_sleep_seconds = 0\nworkers = 3\n[stream]\nstall_seconds = 'soon'")
    lines = complaints(config, {"POOL_DAEMON_LOG__LEVEL": "loud", "POOL_DAEMON_LOG__FORM": "json"})
    assert sorted(line.split(" ")[0] for line in lines) == [
        "expiry.max_sleep_seconds",
        "expiry.workers",
        "log.form",
        "log.level",
        "stream.stall_seconds",
    ]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "1e9", "", "soon", "0x10", "1,5", "true"])
def test_a_duration_that_is_no_sensible_number_is_refused(value: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_STREAM__STALL_SECONDS": value})
    assert line == (
        "stream.stall_seconds (environment variable POOL_DAEMON_STREAM__STALL_SECONDS): "
        "must be a number from 0.1 to 3600"
    )


@pytest.mark.parametrize("value", ["1.5", "-1", "65536", "nan", "", "9" * 5000])
def test_a_port_that_is_no_port_is_refused(value: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_EMBEDDED__PORT": value})
    assert line.endswith("must be a whole number from 0 to 65535")


@pytest.mark.parametrize("value", ["nan", "-inf", "true", "[1]", "1979-05-27", "'soon'", "{ x = 1 }"])
def test_a_duration_of_the_file_that_is_no_sensible_number_is_refused(write_config: WriteConfig, value: str) -> None:
    [line] = complaints(write_config(f"[expiry]\ndrain_seconds = {value}"))
    assert line.startswith("expiry.drain_seconds (file ")


def test_numbers_in_the_environment_are_read_as_numbers() -> None:
    environ = {"POOL_DAEMON_EMBEDDED__PORT": "27018", "POOL_DAEMON_DATABASE__TIMEOUT_SECONDS": "2.5"}
    settings = load_settings(None, environ)
    assert (settings.embedded.port, settings.database.timeout_seconds) == (27018, 2.5)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "hunter2",
        "http://daemon:hunter2@db",
        "mongodb:/daemon:hunter2@db",
        "mongodb://",
        "mongodb://daemon:hunter2@",
        "mongodb://daemon:hunter2@/?replicaSet=explorer",
        "mongodb://daemon:hunter2@work@db",
        "mongodb://daemon:hunter2/3@db",
        "mongodb://daemon:hunter2 @db",
        "MONGODB://daemon:hunter2@db",
    ],
)
def test_an_address_that_no_driver_could_use_is_refused_and_never_shown(uri: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_DATABASE__URI": uri})
    assert line.startswith("database.uri (environment variable POOL_DAEMON_DATABASE__URI): must look like mongodb://")


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "mongodb://localhost",
        "mongodb://localhost:27017/explorer?directConnection=true",
        "mongodb+srv://daemon:p%40ss@cluster.example.org/?retryWrites=true",
        "mongodb://[::1]:27017,10.0.0.1:27018/",
        "mongodb://%2Frun%2Fmongodb.sock",
        "mongodb://db?appName=a@b",
    ],
)
def test_an_address_of_a_mongodb_is_accepted(uri: str) -> None:
    settings = load_settings(None, {"POOL_DAEMON_DATABASE__URI": uri})
    assert settings.database.uri is not None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a.b", "$a", "x" * 64])
def test_a_database_name_that_mongodb_refuses_is_refused(name: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_DATABASE__NAME": name})
    assert line.startswith("database.name ")


@pytest.mark.parametrize("path", ["", ".", "~/mongodb"])
def test_a_path_that_is_not_written_out_is_refused(path: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_EMBEDDED__FOLDER": path})
    assert line.endswith("must be a path written out: not empty, no ~")


@pytest.mark.parametrize("identity", ["", " ", "host 1", "h\u00f6st", "x" * 129, "line\n"])
def test_an_identity_that_could_not_be_told_apart_in_a_log_is_refused(identity: str) -> None:
    [line] = complaints(environ={"POOL_DAEMON_LEASE__IDENTITY": identity})
    assert line.endswith("must have 1 to 128 visible ASCII characters and no space")


def test_a_secret_never_shows() -> None:
    settings = load_settings(None, {"POOL_DAEMON_DATABASE__URI": URI})
    assert "hunter2" not in f"{settings!r} {settings} {settings.masked()}"
    assert settings.masked()["database"]["uri"].startswith("********")
    assert Settings().masked()["database"]["uri"] is None


def test_settings_cannot_be_changed_or_widened_in_code() -> None:
    with pytest.raises(ValidationError):
        Settings().database.name = "other"
    with pytest.raises(ValidationError):
        Database(password="hunter2")  # type: ignore[call-arg]  # noqa: S106 - the point of the test


@given(st.sampled_from([f"POOL_DAEMON_{s}__{f}".upper() for s, f, _ in every_field()]), st.text())
def test_whatever_a_variable_holds_it_is_used_or_refused_by_name(variable: str, text: str) -> None:
    refusal = ""
    try:
        load_settings(None, {variable: text})
    except ConfigurationError as error:
        refusal = str(error)
    assert not refusal or f"(environment variable {variable}): must " in refusal


def test_every_field_is_explained_and_every_number_bounded() -> None:
    for section, name, field in every_field():
        assert field.description, f"{section}.{name}"
        assert field.description.endswith(".")
        if field.annotation in (int, float):
            assert any(hasattr(rule, "ge") for rule in field.metadata), f"{section}.{name}"
            assert any(hasattr(rule, "le") for rule in field.metadata), f"{section}.{name}"


def test_the_example_file_is_the_one_that_the_models_write() -> None:
    assert EXAMPLE.read_text() == example_toml(), "run: pool-daemon check-config --example > config.example.toml"


def test_the_example_file_says_which_settings_need_a_restart() -> None:
    sections, fields, section = set(), set(), ""
    for comment, line in re.findall(r"((?:^# .*\n)+)^(\[\w+\]|#\w+ = .*)$", EXAMPLE.read_text(), re.MULTILINE):
        needs_restart = "Needs a restart." in comment.replace("\n# ", " ")
        if line.startswith("["):
            section = line.strip("[]")
            sections |= {section} if needs_restart else set()
        elif needs_restart:
            fields.add((section, line.strip("#").partition(" ")[0]))
    assert sections == SECTIONS.keys() - RELOADABLE
    assert fields == FIXED


def test_the_example_file_changes_nothing_as_it_stands() -> None:
    assert load_settings(EXAMPLE, {}) == Settings()


def test_the_example_file_uncommented_holds_every_field_with_its_default(write_config: WriteConfig) -> None:
    config = write_config(re.sub(r"^#(\w+ = )", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE))
    document: dict[str, dict[str, Any]] = tomllib.loads(config.read_text())
    assert {section: list(fields) for section, fields in document.items()} == {
        section: list(fields) for section, fields in SECTIONS.items()
    }
    load_settings(config, {})
    for section, name, field in every_field():
        if field.default is not None:
            assert document[section][name] == field.default, f"{section}.{name}"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90s", 90), ("30min", 1800), ("12h", 43_200), ("7d", 604_800), (0, 0)]
)
def test_a_time_of_grace_is_a_duration_and_none_of_them_is_grace(text: str | int, seconds: int) -> None:
    grace = Grace.model_validate({"volume": text})
    assert grace.seconds == ({"volume": seconds} if seconds else {})
    assert Grace().seconds == {}


def test_every_type_of_workload_that_drains_a_pool_may_have_grace() -> None:
    """Else a new type would silently have none. A network has no known units, so it never goes."""
    draining = set(WorkloadType) - {WorkloadType.NETWORK} - FREE_TYPES
    assert sorted(TYPES) == sorted(kind.name.lower() for kind in draining)
    assert set(TYPES) <= set(Grace.model_fields)


@pytest.mark.parametrize("text", ["7", "-1d", "1y", "367d", "7 d", "", 5, True, None])
def test_a_time_of_grace_that_is_no_duration_is_refused_with_the_remedy(text: object) -> None:
    with pytest.raises(ValueError, match=r"volume"):
        Grace.model_validate({"volume": text})


def test_to_wait_until_an_owner_was_told_without_telling_any_is_refused(write_config: WriteConfig) -> None:
    config = write_config("[grace]\nvolume = '1d'\nuntil_told = true\n")
    with pytest.raises(ConfigurationError, match=r"^grace\.until_told .*needs notices\.before"):
        load_settings(config, {})
    told = write_config("[grace]\nvolume = '1d'\nuntil_told = true\n[notices]\nbefore = ['1d']\n")
    assert load_settings(told, {}).grace.until_told
