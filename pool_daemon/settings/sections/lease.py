"""The lease, which decides which daemon acts."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from pool_daemon.settings.sections.section import Section

_IDENTITY = re.compile(r"[!-~]{1,128}")


def _usable_identity(identity: str) -> str:
    if _IDENTITY.fullmatch(identity):
        return identity
    raise ValueError("must have 1 to 128 visible ASCII characters and no space")


Identity = Annotated[str, AfterValidator(_usable_identity)]


class Lease(Section):
    """The lease: of several daemons on one database only the holder acts."""

    seconds: float = Field(
        default=15,
        ge=1,
        le=300,
        description="Seconds after which a standby takes over from a daemon that died; a daemon that is stopped in "
        "order hands over at once. Renewed every third of that, and trusted for four fifths. With less, a database "
        "that answers slowly costs the lease; with more, pools stay overdue for longer. The same for all daemons of "
        "a database.",
    )
    identity: Identity | None = Field(
        default=None,
        examples=["pool-daemon@host-1"],
        description="Name under which this daemon holds the lease. A daemon that starts takes over at once from a "
        "holder of its own name: it takes that for itself before a restart. So the name must survive a restart, and "
        "no two daemons that run at once may share it. Without it, each process has a name of its own: a daemon "
        "killed and restarted waits until its old lease expires.",
    )
