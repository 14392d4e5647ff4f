"""The ledger where there is no log of commits to read: judged by what the documents say in the end."""

from collections import Counter
from collections.abc import Iterable, Iterator

from explorer import Explorer
from ledger import DELETE


def violations(explorer: Explorer, *, gone: Iterable[int], kept: Iterable[int]) -> list[str]:
    """Say of each workload that had to go, or had to stay, what was not done to it exactly once, or not at all."""
    orders, workloads = (explorer.bytes_by_id(name) for name in ("workqueue", "workload"))
    events = Counter(event["workload_id"] for event in explorer.events.find({"kind": "decommissioned"}))
    to_be_deleted = {each["_id"] for each in explorer.workloads.find({"next_action": DELETE}, {"_id": 1})}

    def of_gone(workload_id: int) -> Iterator[str]:
        if workload_id not in to_be_deleted:
            yield f"{workload_id}: still runs"
        elif orders.get(workload_id) != workloads[workload_id]:
            yield f"{workload_id}: its order is not a copy of its document"
        if events[workload_id] != 1:
            yield f"{workload_id}: {events[workload_id]} events"

    def of_kept(workload_id: int) -> Iterator[str]:
        if workload_id in to_be_deleted or workload_id in orders or events[workload_id]:
            yield f"{workload_id}: went although its pool lasts"

    return [each for workload_id in gone for each in of_gone(workload_id)] + [
        each for workload_id in kept for each in of_kept(workload_id)
    ]
