"""Ids as the commands print them in JSON."""

from typing import Any

from pool_daemon.plain_text import cut


def json_id(document_id: Any) -> Any:
    """Return an id for JSON, which escapes it itself."""
    return document_id if isinstance(document_id, int | float) else cut(str(document_id))
