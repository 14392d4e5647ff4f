"""The settings themselves: one frozen model a section, each field with its unit, bounds and reason.

To add a section: write its class below, then give it a line in `Settings`. The file, the environment, the
secrets folder, `check-config` and `config.example.toml` follow from the models.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.fields import FieldInfo
from pydantic_core.core_schema import ValidationInfo

_MONGODB_URI = re.compile(
    r"""mongodb(\+srv)?://
    ([^\s/?@:]+ (:[^\s/?@:]*)? @)?  # user and password, escaped
    [^\s/?@,]+ (,[^\s/?@,]+)*       # hosts
    (/[^\s/?@]*)? (\?\S*)?          # database and options""",
    re.VERBOSE,
)
_IDENTITY = re.compile(r"[!-~]{1,128}")
_DATABASE_NAME = re.compile(r'[^/\\. "$*<>:|?\x00]{1,63}')


def _usable_uri(uri: SecretStr) -> SecretStr:
    if _MONGODB_URI.fullmatch(uri.get_secret_value()):
        return uri
    raise ValueError(
        "must look like mongodb://USER:PASSWORD@HOST/?OPTIONS or mongodb+srv://...; "
        "in user and password write : / ? @ as %3A %2F %3F %40"
    )


def _usable_name(name: str) -> str:
    if _DATABASE_NAME.fullmatch(name):
        return name
    raise ValueError('must have 1 to 63 characters, none of them a space or one of / \\ . " $ * < > : | ?')


def _usable_identity(identity: str) -> str:
    if _IDENTITY.fullmatch(identity):
        return identity
    raise ValueError("must have 1 to 128 visible ASCII characters and no space")


def _usable_path(path: Path) -> Path:
    """Refuse the empty path, which would mean the working directory, and `~`, which only a shell expands."""
    if path == Path() or str(path).startswith("~"):
        raise ValueError("must be a path written out: not empty, no ~")
    return path


Uri = Annotated[SecretStr, AfterValidator(_usable_uri)]
DatabaseName = Annotated[str, AfterValidator(_usable_name)]
Identity = Annotated[str, AfterValidator(_usable_identity)]
UsablePath = Annotated[Path, AfterValidator(_usable_path)]


class Section(BaseModel):
    """What every section is: frozen, closed to unknown keys, and strict about numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_a_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `port = true`, which would otherwise pass for 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("must not be true or false")
        return value


class Database(Section):
    """The MongoDB that holds the pools."""

    uri: Uri | None = Field(
        default=None,
        examples=["mongodb://pool-daemon:password@db-1,db-2,db-3/?replicaSet=explorer"],
        description="Address of the MongoDB, with its user and password. A secret: better kept in the "
        "secrets folder, as a file named database__uri, than in this file. Without it the daemon looks "
        "after a MongoDB of its own in embedded.folder.",
    )
    name: DatabaseName = Field(
        default="explorer",
        description="Name of the database. The default is the one that the explorer uses.",
    )
    timeout_seconds: float = Field(
        default=10,
        ge=0.1,
        le=300,
        description="Seconds that each operation may take, retries by the driver included. Far above what "
        "a healthy server needs, far below what would let a half-open connection pass for a slow one.",
    )
    server_selection_seconds: float = Field(
        default=5,
        ge=0.1,
        le=300,
        description="Seconds to look for a usable server at the start before it is said that MongoDB is away. An "
        "election takes less, and the daemon tries again by itself.",
    )


class Embedded(Section):
    """A MongoDB that the daemon starts for itself, for trying it out; used when database.uri is not set."""

    folder: UsablePath | None = Field(
        default=None,
        examples=["/var/lib/pool-daemon/mongodb"],
        description="Folder that keeps its data across restarts. Without it, `mongod` in systemd's state "
        "folder, else ~/.local/state/pool-daemon/mongod.",
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="TCP port on the loopback address; 0 takes any free one, so that two never collide.",
    )
    mongod: UsablePath | None = Field(
        default=None,
        examples=["/usr/bin/mongod"],
        description="The mongod to start. Without it, the one that the extra `embedded` installs, else the "
        "one on the PATH.",
    )


class Expiry(Section):
    """How pools that run empty are dealt with."""

    safety_seconds: float = Field(
        default=60,
        ge=0.1,
        le=3600,
        description="Longest sleep, in seconds, before the pools are looked at again although nothing was "
        "heard. Bounds how late the daemon can be if every other signal were lost.",
    )
    batch_workloads: int = Field(
        default=500,
        ge=1,
        le=2000,
        description="Most workloads that one transaction decommissions. Each costs three writes, and "
        "MongoDB wants transactions to stay near a thousand; more makes a conflict likelier, fewer costs "
        "round trips.",
    )
    concurrency: int = Field(
        default=3,
        ge=1,
        le=32,
        description="Transactions at work at once. Three keep the server busy while the daemon computes; "
        "more mostly wait for the same disk.",
    )
    drain_seconds: float = Field(
        default=20,
        ge=0,
        le=600,
        description="Seconds that a pass under way may take to finish once the daemon is told to stop. "
        "Keep it below the patience of whoever stops it, by default 90 seconds in systemd, 30 in Kubernetes.",
    )


class Stream(Section):
    """How changes that others make are heard of."""

    poll_seconds: float = Field(
        default=2,
        ge=0.1,
        le=60,
        description="Seconds between two looks at the pools where the server offers no change stream. It "
        "is how late a change may be heard of there.",
    )
    silence_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds after which a stream whose resume token stands still counts as dead and is "
        "opened again. The token moves about every ten seconds even when nothing happens.",
    )


class Clock(Section):
    """How far this machine's clock and the database's may be apart before nothing is done any more."""

    max_difference_seconds: float = Field(
        default=5,
        ge=0.1,
        le=3600,
        description="Seconds that the two clocks may be apart. Far above what NTP leaves, far below what would "
        "credit or rob a customer noticeably.",
    )
    check_seconds: float = Field(
        default=30,
        ge=0.1,
        le=3600,
        description="Seconds between two comparisons. A step of this machine's clock is noticed at once "
        "regardless, by one that never steps; one of the database's within that time.",
    )


class Lease(Section):
    """Who acts when several daemons run on one database: the one that holds the lease."""

    seconds: float = Field(
        default=15,
        ge=1,
        le=300,
        description="Seconds after which a standby takes the place of a daemon that died without a word; one "
        "that is stopped in order hands over at once. Renewed every third of that, and trusted for four "
        "fifths: less, and a database that answers slowly costs the lease; more, and pools stay overdue "
        "for longer. The same for all daemons of a database.",
    )
    identity: Identity | None = Field(
        default=None,
        examples=["pool-daemon@host-1"],
        description="Name under which this daemon holds the lease. A daemon that starts takes over at once from "
        "a holder of its own name, which it takes for itself before a restart: so the name must be the same after "
        "a restart, and no two daemons that run at once may share it. Without it, a name that no other process "
        "has: a daemon killed and restarted waits until its old lease expires.",
    )


class Reconcile(Section):
    """How the pools' books are held against their workloads, in the background."""

    enabled: bool = Field(
        default=True,
        description="Whether it is done at all. It mends what other writers left wrong: deleted workloads that "
        "still count in their pool, rates that do not add up, orders to delete that vanished.",
    )
    interval_seconds: float = Field(
        default=60,
        ge=0.1,
        le=86400,
        description="Seconds to rest between two walks past all pools. What is wrong is mended by the second "
        "walk that finds it.",
    )
    pools_per_second: int = Field(
        default=2000,
        ge=0,
        le=1_000_000,
        description="Most pools looked at in a second; 0 is as fast as it goes. At the default it takes about a "
        "tenth of a core, and 8 minutes for a million pools.",
    )
    order_grace_seconds: float = Field(
        default=60,
        ge=0,
        le=86400,
        description="Seconds for which an order to delete must have been missing, at two looks, before it is put "
        "back; and a pool's books wrong, and in the same way, before they are mended. Far above what the explorer "
        "takes to finish what it has begun.",
    )
    hold_percent: float = Field(
        default=50,
        ge=0,
        le=100,
        description="If more than this share of the pools seem wrong at once, and more than 100, none is mended: "
        "workloads are then missing, as in a database restored by half, rather than deleted. 100 always mends.",
    )


class Brake(Section):
    """When more is due than seems right, as after a restored backup, it is held until an operator says otherwise."""

    enabled: bool = Field(
        default=True,
        description="Whether anything is ever held. If not, everything due is settled, whatever it is.",
    )
    share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Part of all pools in use that may fall due at once. If more do, and more than brake.pools, "
        "all that fell due at once are held.",
    )
    pools: int = Field(
        default=100,
        ge=0,
        le=1_000_000_000,
        description="Pools that may fall due at once, however small the whole. Only those count that would lose a "
        "workload.",
    )
    age_seconds: float = Field(
        default=86400,
        ge=1,
        le=315_360_000,
        description="Seconds that a pool may be overdue when the daemon first looks after a start. What is overdue "
        "by more is held: it ran out while nobody looked for a long time, or comes from an old backup.",
    )


class Retry(Section):
    """When a pool that fails by itself is tried again. An outage of the database is nobody's failure."""

    tries: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Times in a row that a pool may fail before it goes into quarantine.",
    )
    first_seconds: float = Field(
        default=1,
        ge=0.1,
        le=3600,
        description="Longest wait, in seconds, before the second try. It doubles each time.",
    )
    longest_seconds: float = Field(
        default=300,
        ge=0.1,
        le=86400,
        description="Longest wait between two tries, in seconds, before the quarantine.",
    )
    quarantine_seconds: float = Field(
        default=3600,
        ge=1,
        le=604800,
        description="Seconds, give or take a tenth, between two tries of a pool in quarantine.",
    )


class Log(Section):
    """What the daemon says, and how."""

    format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="json is one object a line, for machines; console is for people; auto takes console on "
        "a terminal and json elsewhere.",
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least that is said. info tells every pool that expires and every change of state; "
        "debug tells every pass.",
    )
    detail: Literal["workload", "pool"] = Field(
        default="workload",
        description="Whether each workload that is decommissioned gets a line of its own, or each pool one for all.",
    )


class Http(Section):
    """Metrics, health and a page that shows both, for whoever may reach the address; nothing can be changed there."""

    enabled: bool = Field(
        default=True,
        description="Whether to listen at all. Without it neither Prometheus nor a probe can ask.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. The default is for this machine alone; in a container it is "
        '"0.0.0.0", or "::" for IPv6. Whoever reaches it sees the ids of pools and customers.',
    )
    port: int = Field(
        default=9464,
        ge=0,
        le=65535,
        description="TCP port to listen on; 0 takes any free one and logs which.",
    )


class Settings(Section):
    """Everything an operator may decide. Built in code it reads nothing from outside; see `load_settings`."""

    database: Database = Database()
    embedded: Embedded = Embedded()
    expiry: Expiry = Expiry()
    stream: Stream = Stream()
    lease: Lease = Lease()
    clock: Clock = Clock()
    brake: Brake = Brake()
    retry: Retry = Retry()
    reconcile: Reconcile = Reconcile()
    log: Log = Log()
    http: Http = Http()

    def masked(self) -> dict[str, dict[str, Any]]:
        """Return every value as JSON could hold it; a secret that is set shows as asterisks, else as None."""
        return self.model_dump(mode="json")


SECTIONS: Mapping[str, Mapping[str, FieldInfo]] = {
    name: type(field.default).model_fields for name, field in Settings.model_fields.items()
}


def takes(field: FieldInfo) -> str | None:
    """Say in words what a field accepts, bounds included; None if that is text of any kind."""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if kind in (int, float):
        least = next(rule.ge for rule in field.metadata if hasattr(rule, "ge"))
        most = next(rule.le for rule in field.metadata if hasattr(rule, "le"))
        return f"a {'whole ' if kind is int else ''}number from {least} to {most}"
    return "true or false" if kind is bool else None
