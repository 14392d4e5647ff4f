"""What several commands print: ids in JSON, and a warning about what has no effect."""

import sys
from typing import Any

from pool_daemon.plain_text import cut
from pool_daemon.settings import Settings


def json_id(document_id: Any) -> Any:
    """Return an id for JSON, which escapes it itself."""
    return document_id if isinstance(document_id, int | float) else cut(str(document_id))


def warn_without_grace(settings: Settings) -> None:
    """Warn on standard error if a daemon with these settings gives no grace: it heeds no policy and no extension."""
    if not settings.grace.seconds:
        print(
            "[grace] of these settings gives no type a time: policies and extensions have no effect until it does",
            file=sys.stderr,
        )
