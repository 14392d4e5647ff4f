"""The MongoDB that the daemon starts for itself."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from pool_daemon.settings.sections.section import Section


def _usable_path(path: Path) -> Path:
    """Refuse the empty path, which would mean the working directory, and `~`, which only a shell expands."""
    if path == Path() or str(path).startswith("~"):
        raise ValueError("must be a path written out: not empty, no ~")
    return path


UsablePath = Annotated[Path, AfterValidator(_usable_path)]


class Embedded(Section):
    """A MongoDB that the daemon starts for itself, for trying it out; used when database.uri is not set."""

    folder: UsablePath | None = Field(
        default=None,
        examples=["/var/lib/pool-daemon/mongodb"],
        description="Folder that keeps its data and its password, for its owner alone. Without it, "
        "`mongod` in systemd's state folder, else ~/.local/state/pool-daemon/mongod.",
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
