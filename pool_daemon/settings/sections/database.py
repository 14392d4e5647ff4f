"""The database, and its time-outs."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from pool_daemon.settings.sections.section import Section

_HOST = r"(\[[0-9A-Fa-f:.%]+\] (:\d+)? | [^\s/?@,\[\]]+)"  # an IPv6 address stands in brackets
_MONGODB_URI = re.compile(
    r"""mongodb(\+srv)?://
    ([^\s/?@:]+ (:[^\s/?@:]*)? @)?  # user and password, escaped
    HOST (,HOST)*
    (/[^\s/?@]*)? (\?\S*)?          # database and options""".replace("HOST", _HOST),
    re.VERBOSE,
)
_DATABASE_NAME = re.compile(r'[^/\\. "$*<>:|?\x00]{1,63}')


def _usable_uri(uri: SecretStr) -> SecretStr:
    if _MONGODB_URI.fullmatch(uri.get_secret_value()):
        return uri
    raise ValueError(
        "must look like mongodb://HOST/?OPTIONS or mongodb+srv://HOST, with USER:PASSWORD@ before HOST; "
        "in user and password write : / ? @ as %3A %2F %3F %40, an IPv6 address in brackets"
    )


def _usable_name(name: str) -> str:
    if _DATABASE_NAME.fullmatch(name):
        return name
    raise ValueError('must have 1 to 63 characters, none of them a space or one of / \\ . " $ * < > : | ?')


Uri = Annotated[SecretStr, AfterValidator(_usable_uri)]
DatabaseName = Annotated[str, AfterValidator(_usable_name)]


class Database(Section):
    """The MongoDB that holds the pools."""

    uri: Uri | None = Field(
        default=None,
        examples=["mongodb://pool-daemon:password@db-1,db-2,db-3/?replicaSet=explorer"],
        description="Address of the MongoDB, with its user and password. A secret: better kept in the secrets "
        "folder, as a file named database__uri, than in this file. Without it the daemon runs a MongoDB of its own "
        "in embedded.folder.",
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
        description="Seconds to search for a usable server before MongoDB counts as unavailable: at the start, and "
        "for the change stream. An election takes less, and the daemon retries by itself. Any other operation "
        "searches for as long as timeout_seconds allows.",
    )
