"""Whether the daemon's own record of each decommission agrees with the server's log of what was committed."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from arithmetic_model import exhausted
from explorer import Explorer

from pool_daemon.store.event_history import Record, record_of
from pool_daemon.store.records import NUMBERS
from pool_daemon.views.story import Known, event_problems, lines

if TYPE_CHECKING:
    from ledger import Decommission


def contradictions(explorer: Explorer, decommissions: "Iterable[Decommission]") -> list[str]:
    """Say of each decommission what `pool-daemon explain` would not tell, or would tell otherwise than the log."""
    records: defaultdict[object, list[Record]] = defaultdict(list)
    for document in explorer.events.find({"kind": "decommissioned"}):
        if isinstance(document["workload_id"], int):
            records[document["workload_id"]].append(record_of(document))
    found = [each for gone in decommissions for each in _of(gone, records[gone.workload_id], explorer)]
    return [*found, *event_problems(record for several in records.values() for record in several)]


def _of(gone: "Decommission", records: list[Record], explorer: Explorer) -> Iterator[str]:
    name = f"workload {gone.workload_id}"
    as_read = {field: gone.pool.get(field, 0) for field in NUMBERS}
    record = next((each for each in records if each.before == as_read), None)
    if record is None:
        yield f"{name}: no record of it has the pool's numbers {as_read}, but {[each.before for each in records]}"
        return
    if (record.pool_id, record.customer_tid) != (gone.pool["_id"], gone.pool.get("customer_tid", 0)):
        yield f"{name}: is recorded of pool {record.pool_id} of {record.customer_tid}, but went from {gone.pool['_id']}"
    missing = exhausted(gone.pool, explorer.rates[gone.workload_id], now=int(gone.committed_at))
    if not record.resources or not set(record.resources) <= set(missing):
        yield f"{name}: is recorded to be out of {record.resources}, but was out of {missing}"
    told = [line.text for line in lines(_known(gone, record))]
    if not any(f"{name} decommissioned by {record.by}" in text for text in told):
        yield f"{name}: its story says {told}"


def _known(gone: "Decommission", record: Record) -> Known:
    return Known(
        now=int(gone.committed_at),
        pool=None,
        unreadable=None,
        bought=None,
        events=[record],
        workloads=(),
        hold=None,
        quarantined=None,
        compared=None,
        workload_id=gone.workload_id,
    )
