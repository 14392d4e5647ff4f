"""The scenario: its pools, the actions of their customers, and what the daemon must do.

Every time in the table is a second of the scenario. Its second 0 is a whole second of the clock. It comes only when the
daemon runs and has handled the pool that was overdue before the start.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pool_daemon.capacity.workload import WorkloadType

BEFORE_THE_DAEMON: Final = -1
HOUR: Final = 3600


@dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """One workload as its document describes it: its type and the fields that its units are computed from."""

    type: WorkloadType
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TopUp:
    """At second `at` the customer buys what the pool uses, so that it lasts until second `until`."""

    at: int
    until: int


@dataclass(frozen=True, slots=True)
class Deploy:
    """At second `at` the customer deploys one more workload into the pool, which drains faster from then on."""

    at: int
    workload: Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPool:
    """One pool of the scenario, from its purchase to the expected result.

    It is paid until second `paid_until`, the resources in `plentiful` for an hour longer. Its customer does the actions
    in `acts`. At second `ends` it must run empty and all of its workloads be stopped, except those in `stays`. If
    `ends` is None, none may be stopped.
    """

    pool_id: int
    name: str
    shows: str
    workloads: tuple[Workload, ...]
    paid_until: int
    ends: int | None
    stays: tuple[Workload, ...] = ()
    plentiful: tuple[str, ...] = ()
    acts: tuple[TopUp | Deploy, ...] = ()
    appears: int = 0
    damaged: bool = False

    @property
    def all_workloads(self) -> Mapping[int, Workload]:
        """All workloads that the pool ever has, by id, those deployed later last."""
        deployed = [act.workload for act in self.acts if isinstance(act, Deploy)]
        return dict(enumerate([*self.workloads, *deployed], start=self.pool_id * 100 + 1))

    @property
    def leaving(self) -> list[int]:
        """The ids of the workloads that must be stopped."""
        if self.ends is None:
            return []
        return [key for key, workload in self.all_workloads.items() if workload not in self.stays]


@dataclass(frozen=True, slots=True)
class Timetable:
    """The scenario's seconds as instants of the clock, in unix seconds.

    The pools that exist before the daemon count from `opened_at`, all others from `started_at`, which is None until the
    daemon runs.
    """

    opened_at: int
    started_at: int | None = None

    def origin(self, plan: PlannedPool) -> int:
        """Return the instant that is second 0 for this pool."""
        if plan.appears == BEFORE_THE_DAEMON or self.started_at is None:
            return self.opened_at
        return self.started_at

    def empty_at(self, plan: PlannedPool) -> int | None:
        """Return the instant at which the pool must run empty, None if it must not."""
        return None if plan.ends is None else self.origin(plan) + plan.ends


def _container(cpu: int, memory_mib: int, disk_gib: int = 50) -> Workload:
    capacity = {"cpu": cpu, "memory": memory_mib, "disk_size": disk_gib * 1024, "disk_type": 1}
    return Workload(WorkloadType.CONTAINER, {"capcity": capacity})


SMALL = _container(1, 2048)
LARGE = _container(6, 12 * 1024)
ODD = _container(1, 1537, 77)
VOLUME = Workload(WorkloadType.VOLUME, {"size": 100, "type": 1})
ZDB = Workload(WorkloadType.ZDB, {"size": 7, "disk_type": 0})
KUBERNETES = Workload(WorkloadType.KUBERNETES, {"size": 2})
MACHINE = Workload(WorkloadType.VIRTUAL_MACHINE, {"size": -1, "custom_size": {"cru": 3, "mru": 5.5, "sru": 40}})
PUBLIC_IP = Workload(WorkloadType.PUBLIC_IP, {})
GATEWAY = Workload(WorkloadType.GATEWAY4TO6, {})
NETWORK = Workload(WorkloadType.NETWORK_RESOURCE, {})

# fmt: off
SCENARIO: Final = (
    PlannedPool(pool_id=1, name="overdue", shows="empty before the start",
                workloads=(SMALL,), appears=BEFORE_THE_DAEMON, paid_until=-600, ends=-600),
    PlannedPool(pool_id=2, name="unreadable", shows="skipped, the rest goes on",
                workloads=(SMALL,), appears=BEFORE_THE_DAEMON, paid_until=-300, ends=None, damaged=True),
    PlannedPool(pool_id=3, name="container", shows="a container",
                workloads=(SMALL,), paid_until=3, ends=3),
    PlannedPool(pool_id=4, name="volume", shows="a volume",
                workloads=(VOLUME,), paid_until=5, ends=5),
    PlannedPool(pool_id=5, name="kubernetes", shows="a Kubernetes node",
                workloads=(KUBERNETES,), paid_until=7, ends=7),
    PlannedPool(pool_id=6, name="public ip", shows="an IPv4 address",
                workloads=(PUBLIC_IP,), paid_until=9, ends=9),
    PlannedPool(pool_id=7, name="fractions", shows="fractional rates",
                workloads=(ODD, ZDB), paid_until=11, ends=11),
    PlannedPool(pool_id=8, name="network", shows="a free network stays",
                workloads=(SMALL, NETWORK), paid_until=13, ends=13, stays=(NETWORK,)),
    PlannedPool(pool_id=9, name="storage", shows="only storage runs out",
                workloads=(SMALL, VOLUME), paid_until=15, plentiful=("cu",), ends=15, stays=(SMALL,)),
    PlannedPool(pool_id=10, name="topped up", shows="paid 2 s before its end",
                workloads=(SMALL, VOLUME), paid_until=17, acts=(TopUp(at=15, until=HOUR),), ends=None),
    PlannedPool(pool_id=11, name="shortened", shows="a new workload hastens it",
                workloads=(SMALL,), paid_until=88, acts=(Deploy(at=8, workload=LARGE),), ends=19),
    PlannedPool(pool_id=12, name="newcomer", shows="bought in the meantime",
                workloads=(MACHINE,), appears=12, paid_until=21, ends=21),
    PlannedPool(pool_id=13, name="prolonged", shows="paid, but not for long",
                workloads=(KUBERNETES,), paid_until=12, acts=(TopUp(at=10, until=23),), ends=23),
    PlannedPool(pool_id=14, name="gateway", shows="free, drains nothing",
                workloads=(GATEWAY,), paid_until=0, ends=None),
    PlannedPool(pool_id=15, name="crowd", shows="twelve at the same time",
                workloads=(SMALL, VOLUME, PUBLIC_IP) * 4, paid_until=25, ends=25),
)
# fmt: on
