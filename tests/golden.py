"""Golden data: what the explorer's own arithmetic made of pools, workloads and reservations."""

import gzip
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"

Row = dict[str, Any]


def sequences() -> list[Row]:
    """Return the sequences of operations on a pool, each step with the pool's state after it."""
    return _rows("pool.jsonl.gz")


def table(name: str) -> list[Row]:
    """Return the lines of a table: units, pool_bson or reservation."""
    return [row for row in _rows("tables.jsonl.gz") if row["table"] == name]


def _rows(file: str) -> list[Row]:
    with gzip.open(DATA / file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
