"""One pool, whole, as text or as JSON."""

import argparse
import json
from collections.abc import Iterator
from typing import Final

from pool_daemon.errors import ExitCode
from pool_daemon.settings import Settings
from pool_daemon.store.client import Database
from pool_daemon.views.grace_view import grace_views
from pool_daemon.views.pool_view import (
    RESOURCE_COLUMNS,
    WORKLOAD_COLUMNS,
    Limits,
    PoolView,
    facts,
    pool_json,
    purchase_head,
    purchase_rows,
    read_pool,
    resource_row,
    workload_row,
    workloads_head,
)

NAME: Final = "{:13} {}"
RESOURCE: Final = "{:9} {:>7} {:>6}  {:20}  {}"
PURCHASE: Final = "{:9} {:>22}  {}"
WORKLOAD: Final = "{:>12} {:15} {:7} {:>6} {:>6} {:>6}  {}"


async def show_pool(database: Database, settings: Settings, arguments: argparse.Namespace) -> ExitCode:
    """Print one pool; its arrays are complete as JSON, and begun as text.

    Raises PoolNotFoundError or UnreadableDocumentError.
    """
    limits = Limits(workloads=arguments.limit, purchase_seconds=arguments.lasts, whole=arguments.json)
    graces = grace_views(database, settings.grace)
    view = await read_pool(database, arguments.pool_id, limits=limits, graces=graces)
    if arguments.json:
        print(json.dumps(pool_json(view)))
        return ExitCode.OK
    for line in _lines(view):
        print(line.rstrip())
    return ExitCode.OK


def _lines(view: PoolView) -> Iterator[str]:
    yield from (NAME.format(name, text) for name, text in facts(view))
    yield ""
    yield RESOURCE.format(*RESOURCE_COLUMNS)
    yield from (RESOURCE.format(*resource_row(each, now=view.now)) for each in view.outlooks)
    yield ""
    yield purchase_head(view)
    yield from (PURCHASE.format(*row) for row in purchase_rows(view))
    yield ""
    yield NAME.format("workloads", workloads_head(view))
    if view.workloads:
        yield WORKLOAD.format(*WORKLOAD_COLUMNS)
    yield from (WORKLOAD.format(*workload_row(each)) for each in view.workloads)
    if view.more_workloads > 0:
        yield f"and {view.more_workloads:,} more; --limit N shows more of them"
