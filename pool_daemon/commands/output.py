"""What the commands print of amounts, durations, instants and ids."""

from typing import Any

from pool_daemon.plain_text import cut
from pool_daemon.views.texts import NAMES, UNITS, action_name, short, span, type_name, units_for, when

__all__ = ["NAMES", "UNITS", "action_name", "json_id", "short", "span", "type_name", "units_for", "when"]


def json_id(document_id: Any) -> Any:
    """Return an id for JSON, which escapes it itself."""
    return document_id if isinstance(document_id, int | float) else cut(str(document_id))
