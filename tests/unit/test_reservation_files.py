"""Reservations as files: ordered, signed and verified without a database."""

import json
import os
from pathlib import Path
from typing import Any

import golden
import pytest
from reservations_command import CUSTOMER, SPONSOR, file_of, signed

from pool_daemon.capacity.pool import new_pool
from pool_daemon.capacity.reservation import Reservation, Signer, public_key
from pool_daemon.capacity.reservation_checks import Known, Outcome, User, checks
from pool_daemon.cli import main
from pool_daemon.errors import ExitCode

SEED = bytes(CUSTOMER)
CUSTOMER_PK, SPONSOR_PK = (key.verify_key.encode().hex() for key in (CUSTOMER, SPONSOR))
NEW = ["reservations", "new", "--customer", "7", "--node", "n1"]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{SEED.hex()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(autouse=True)
def no_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let a command that asks a database fail at once."""
    monkeypatch.delenv("POOL_DAEMON_CONFIG", raising=False)
    monkeypatch.setenv("POOL_DAEMON_EMBEDDED__FOLDER", str(tmp_path / "no-embedded-server"))


def outcomes(reservation: Reservation, known: Known) -> dict[str, Outcome]:
    return {each.name: each.outcome for each in checks(reservation, known)}


def test_the_text_to_sign_is_written_as_the_explorers_clients_write_it() -> None:
    rows = [row["json"] for row in golden.table("reservation") if row["valid"]]
    assert len(rows) > 20
    for row in rows:
        assert Reservation.from_json(row).data_reservation.to_signed_text() == row["json"].strip()


def test_the_checks_say_of_each_golden_reservation_what_the_explorer_says() -> None:
    for row in golden.table("reservation"):
        customer, sponsor = User(row["customer_pk"]), User(row["sponsor_pk"], is_trusted=True)
        found = outcomes(Reservation.from_json(row["json"]), Known(customer=customer, sponsor=sponsor, asked=False))
        assert (found["customer's signature"] is Outcome.OK) == row["verify"]
        if row["json"]["sponsor_tid"]:
            assert (found["sponsor's signature"] is Outcome.OK) == row["verify_sponsor"]
        form = [found["signed text"], found["nodes"], found["customer"]]
        complete = row["json"]["customer_signature"] and (
            row["json"]["sponsor_signature"] or not row["json"]["sponsor_tid"]
        )
        assert (Outcome.FAILED not in form and bool(complete)) == row["valid"], row


@pytest.mark.parametrize(
    ("known", "name", "reason"),
    [
        ({"customer": None}, "customer", "user 7 is unknown"),
        ({"sponsor": None}, "sponsor", "user 8 is unknown"),
        ({"sponsor": User(SPONSOR_PK)}, "sponsor", "user 8 is no trusted_sales_channel"),
        ({"customer": User(SPONSOR_PK)}, "customer's signature", "customer's signature does not hold"),
        ({"sponsor": User("", is_trusted=True)}, "sponsor's signature", "public key has 0 bytes"),
        ({"pool": None}, "pool", "pool 17 is unknown"),
        ({"pool": new_pool(17, 9, 0, ["another"], now=0)}, "pool", "must name every node of the pool, 'another' too"),
    ],
)
def test_each_check_fails_by_name_with_its_reason(known: dict[str, Any], name: str, reason: str) -> None:
    good: dict[str, Any] = {
        "customer": User(CUSTOMER_PK),
        "sponsor": User(SPONSOR_PK, is_trusted=True),
        "pool": new_pool(17, 9, 0, [], now=0),
    }
    reservation = Reservation.from_json(signed(sponsor=True, pool_id=17))
    assert all(each.holds for each in checks(reservation, Known(**good)))
    failed = [each for each in checks(reservation, Known(**good | known)) if each.outcome is Outcome.FAILED]
    assert [each.name for each in failed] == [name]
    assert reason in failed[0].reason


def test_a_reservation_is_ordered_signed_by_both_and_verified(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--sponsor", "8", "--cu", "2x30d", "--su", "0.5x12h", "--ipv4u", "1x1h", "--currency", "TFT"]
    assert main([*NEW, *options]) == ExitCode.OK
    ordered = capsys.readouterr().out
    assert json.loads(ordered)["json"] == (
        '{"pool_id":0,"cus":5184000,"sus":21600,"ipv4us":3600,"node_ids":["n1"],"currencies":["TFT"]}'
    )
    file = tmp_path / "r.json"
    file.write_text(ordered)
    file.chmod(0o640)
    sponsors = tmp_path / "sponsor"
    sponsors.write_bytes(bytes(SPONSOR))
    sponsors.chmod(0o600)
    verifying = ["reservations", "verify", str(file), "--public-key", CUSTOMER_PK]

    assert main(["reservations", "sign", str(file), "--key-file", str(key_file)]) == ExitCode.OK
    said = capsys.readouterr()
    assert said.out == f"signed as customer 7 with the key whose public key is {CUSTOMER_PK}\n"
    assert said.err == ""
    assert file.stat().st_mode & 0o777 == 0o640
    assert main([*verifying, "--sponsor-public-key", SPONSOR_PK]) == ExitCode.FAILED
    assert "failed       sponsor's signature   sponsor_signature is required\n" in capsys.readouterr().out
    assert main(["reservations", "sign", str(file), "--key-file", str(sponsors), "--as", "sponsor"]) == ExitCode.OK
    capsys.readouterr()

    assert main([*verifying, "--sponsor-public-key", SPONSOR_PK]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    unknown = "not checked"
    assert [line[:12].rstrip() for line in lines] == ["ok", "ok", unknown, unknown, "ok", unknown, "ok", "ok"]
    assert max(map(len, lines)) <= 80
    assert main(verifying) == ExitCode.FAILED, "a signature that nobody has checked"
    assert "not checked  sponsor's signature   the sponsor's public key is not named\n" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "r.json", "sponsor"]


def test_a_pipe_is_signed_and_printed(
    key_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = signed() | {"customer_signature": ""}
    reading, writing = os.pipe()
    os.write(writing, json.dumps(document).encode())
    os.close(writing)
    with os.fdopen(reading) as pipe:
        monkeypatch.setattr("sys.stdin", pipe)
        assert main(["reservations", "sign", "-", "--key-file", str(key_file)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == signed()


def test_a_dry_run_writes_no_file(tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path, signed() | {"customer_signature": ""})
    before = Path(file).read_bytes()
    assert main(["reservations", "sign", file, "--key-file", str(key_file), "--dry-run"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == signed()
    assert Path(file).read_bytes() == before


@pytest.mark.parametrize("key", [SEED.hex().upper(), SEED.hex() + CUSTOMER_PK, f" {SEED.hex()}\n\n"])
def test_a_key_may_be_written_in_every_usual_way(
    tmp_path: Path, key: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file.write_text(key)
    file = file_of(tmp_path, signed() | {"customer_signature": ""})
    assert main(["reservations", "sign", file, "--key-file", str(key_file), "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == signed() == json.loads(Path(file).read_text())


@pytest.mark.parametrize(
    "key", ["", "ab", SEED.hex()[:-1], SEED.hex() + SEED.hex(), "a secret of just 32 characters.." + "", "x" * 9000]
)
def test_what_is_no_key_is_refused_and_not_repeated(
    tmp_path: Path, key: str, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file.write_text(key)
    file = file_of(tmp_path, signed())
    assert main(["reservations", "sign", file, "--key-file", str(key_file)]) == ExitCode.FAILED
    said = capsys.readouterr().err
    assert said == (
        f"pool-daemon: {key_file}: no Ed25519 key: it must hold a seed of 32 bytes, or its 64 hexadecimal digits\n"
    )


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o666])
def test_a_key_that_others_may_use_is_warned_about(
    tmp_path: Path, mode: int, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file.chmod(mode)
    assert main(["reservations", "sign", file_of(tmp_path, signed()), "--key-file", str(key_file)]) == ExitCode.OK
    assert capsys.readouterr().err == f"pool-daemon: {key_file}: others may use this key; chmod 600 it\n"


def test_nothing_is_signed_that_says_something_else_than_what_is_done(
    tmp_path: Path, key_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = signed(cus=5) | {"json": signed(cus=6)["json"]}
    file = file_of(tmp_path, document)
    assert main(["reservations", "sign", file, "--key-file", str(key_file)]) == ExitCode.FAILED
    assert capsys.readouterr().err == "pool-daemon: json and data_reservation differ in cus\n"
    assert json.loads(Path(file).read_text()) == document
    unsponsored = ["reservations", "sign", file_of(tmp_path, signed()), "--key-file", str(key_file), "--as", "sponsor"]
    assert main(unsponsored) == ExitCode.FAILED
    assert "sponsor_tid is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        ("[]", "no JSON object"),
        ("[" * 100_000, "no JSON"),
        ('{"customer_tid": "\\u001b[2J"}', "customer_tid is of type str, not a whole number"),
        ('{"data_reservation": {"cus": -1}}', "cus is -1, below 0"),
        ('{"id": ' + "9" * 5000 + "}", "no JSON"),
        (" " * (4 * 2**20 + 1), "longer than 4,194,304 bytes"),
        (None, "cannot be read: No such file or directory"),
    ],
    ids=range(8),
)
def test_a_file_that_is_no_reservation_is_refused_in_one_line_that_names_it(
    tmp_path: Path, text: str | None, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.json"
    if text is not None:
        file.write_text(text)
    assert main(["reservations", "verify", str(file), "--public-key", CUSTOMER_PK]) == ExitCode.FAILED
    said = capsys.readouterr().err
    assert said.startswith(f"pool-daemon: {file}: {reason}")
    assert said.count("\n") == 1


def test_hostile_text_breaks_no_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = signed(node_ids=["\x1b[2J\n", "\x1b[2J\n"]) | {"json": '{"\x1b":\x1b}'}
    file = file_of(tmp_path, document)
    assert main(["reservations", "verify", file, "--public-key", "\x1b"]) == ExitCode.FAILED
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 8
    assert "\x1b" not in shown


def test_without_a_database_the_keys_have_to_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reservations", "verify", file_of(tmp_path, signed())]) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err.startswith("pool-daemon: database.uri: not set")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([*NEW], "name what to buy: --cu, --su or --ipv4u"),
        ([*NEW, "--cu", "2"], "must be units for a duration, such as 2x30d"),
        ([*NEW, "--cu", "1x1h", "--pool", "0"], "must be a whole number of at least 1"),
        ([*NEW, "--cu", "999999999999x5000w"], "must be at most 9223372036854775807 unit seconds"),
        (["reservations", "new", "--customer", "7", "--node", "a\nb"], "one line of 1 to 500 printable"),
        (["reservations", "list", "--state", "gone"], "invalid choice: 'gone' (choose from 'applied', 'paid',"),
        (["reservations", "new", "--node", "n1"], "the following arguments are required: --customer"),
    ],
)
def test_an_order_that_makes_no_sense_is_a_usage_error(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == ExitCode.USAGE
    shown = capsys.readouterr()
    assert reason in shown.err
    assert shown.out == ""


def test_a_node_that_is_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*NEW, "--node", "n1", "--cu", "1x1h"]) == ExitCode.FAILED
    assert capsys.readouterr().err == "pool-daemon: node_ids names a node twice\n"


def test_a_signature_is_that_of_the_seed() -> None:
    reservation = Reservation.from_json(signed() | {"customer_signature": ""}).signed(Signer.CUSTOMER, SEED)
    reservation.verify(public_key(SEED))
    assert reservation.to_json() == signed()
