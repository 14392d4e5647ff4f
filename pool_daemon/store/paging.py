"""Reads results in pages that may be larger than memory."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from pool_daemon.store.error_mapping import translated

PAGE: Final = 1000
"""Documents a round trip."""


async def pages(cursor: Any, *, doing: str) -> AsyncGenerator[list[Any], None]:
    """Yield the documents of a cursor in pages, and close it; close the iterator when leaving it early.

    `doing` names the operation in errors. Raises StoreUnavailableError or StoreRefusedError.
    """
    try:
        while True:
            with translated(doing):
                documents = await cursor.to_list(PAGE)
            if not documents:
                return
            yield documents
    finally:
        await cursor.close()
