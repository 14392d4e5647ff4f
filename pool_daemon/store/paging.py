"""Reading what may be more than is held at once."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from pool_daemon.store.failures import translated

PAGE: Final = 1000
"""Documents a round trip."""


def number_only(name: str) -> dict[str, Any]:
    """Return the expression of a field that leaves the server only as a number; its type's name stands for all else.

    So nothing of any length is received, and what reads the field finds it missing or wrong as before.
    """
    kind = {"$type": f"${name}"}
    return {"$cond": [{"$isNumber": f"${name}"}, f"${name}", {"$cond": [{"$eq": [kind, "missing"]}, "$$REMOVE", kind]}]}


async def pages(cursor: Any, *, doing: str) -> AsyncGenerator[list[Any], None]:
    """Yield the documents of a cursor, a page at a time, and close it; close the iterator when leaving it early.

    `doing` is what an error says failed. Raises StoreUnavailableError or StoreRefusedError.
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
