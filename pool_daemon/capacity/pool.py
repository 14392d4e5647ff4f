"""The pool: an amount of capacity that a customer bought, and the rates at which workloads drain it.

Amounts are compute, storage and IPv4 unit seconds; rates are units, so one unit takes one unit second a second.
Instants are whole unix seconds, passed in by the caller. The explorer service computes the same pools in the same
database, so every operation must give the same result bit for bit.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from pool_daemon.capacity import fields
from pool_daemon.capacity.arithmetic import LATEST, all_finite, runs_out_at
from pool_daemon.capacity.fields import RATE_DUST
from pool_daemon.errors import CapacityError, NotFiniteError, PoolDaemonError

NEVER: Final = LATEST
"""The `empty_at` of a pool that nothing drains."""

_DOUBLES: Final = ("cus", "sus", "ipv4us", "active_cu", "active_su", "active_ipv4")

Amounts = tuple[float, float, float]
"""Compute, storage and IPv4, in that order: unit seconds left, or units active."""

FIELDS: Final = (
    ("cus", fields.number, 0.0),
    ("sus", fields.number, 0.0),
    ("ipv4us", fields.number, 0.0),
    ("node_ids", fields.texts, None),
    ("last_updated", fields.whole, 0),
    ("active_cu", fields.rate, 0.0),
    ("active_su", fields.rate, 0.0),
    ("active_ipv4", fields.rate, 0.0),
    ("empty_at", fields.whole, 0),
    ("customer_tid", fields.whole, 0),
    ("sponsor_tid", fields.whole, 0),
    ("active_workload_ids", fields.wholes, None),
)
"""A pool's fields behind its id, in the order in which they are written: name, reader, and value where the field is
missing. Older explorers knew fewer fields, and the current one reads a missing field as zero."""


@dataclass(slots=True, kw_only=True)
class Pool:
    """One pool's state, as of `last_updated`.

    Mutable and not thread safe: the owner of the object must not share it. Every method does all that it says, or
    raises and changes nothing. Lists are replaced, never changed in place, so that a shallow copy stays as it is. A
    clock that steps back credits nothing: while `now` lies before `last_updated`, no time passes for the pool.

    `missing` names the fields that the document lacked from which the pool was read; an update adds none of them.
    Raises NotFiniteError if an amount or a rate is NaN or infinite.
    """

    pool_id: int
    cus: float
    sus: float
    ipv4us: float
    node_ids: list[str] | None
    last_updated: int
    active_cu: float
    active_su: float
    active_ipv4: float
    empty_at: int
    customer_tid: int
    sponsor_tid: int
    active_workload_ids: list[int] | None
    missing: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def __post_init__(self) -> None:
        self._require_finite("what is left or active", *self._left, *self._active)
        for name in _DOUBLES:
            # An integer would be written to the database as one, where the explorer expects a double.
            if type(value := getattr(self, name)) is not float:
                setattr(self, name, float(value))

    @property
    def _left(self) -> Amounts:
        return self.cus, self.sus, self.ipv4us

    @property
    def _active(self) -> Amounts:
        return self.active_cu, self.active_su, self.active_ipv4

    @property
    def draining(self) -> Amounts:
        """The active rates as used in every decision: rounding dust, on either side of 0, counts as 0."""
        cu, su, ipv4u = (0.0 if abs(rate) < RATE_DUST else rate for rate in self._active)
        return cu, su, ipv4u

    def sync_current_capacity(self, now: int) -> None:
        """Deduct the use since `last_updated`; `empty_at` stays as it is.

        Raises NotFiniteError if the remaining amounts could not be held in a double.
        """
        if now >= self.last_updated:
            left = self._left_at(now)
            self._require_finite("what is left", *left)
            self.cus, self.sus, self.ipv4us = left
            self.last_updated = now

    def add_capacity(self, cus: float, sus: float, ipv4us: float, *, now: int) -> None:
        """Top the pool up with each amount above 0 (unit seconds) and recompute `empty_at`.

        Raises NotFiniteError if an amount is NaN or infinite, or the sum could not be held in a double.
        """
        self._require_finite("capacity to add", cus, sus, ipv4us)
        left = _raised(self._left_at(now), (cus, sus, ipv4us))
        self._become(left, self._active, now=now)

    def add_workload(self, workload_id: int, cu: float, su: float, ipv4u: float, *, now: int) -> None:
        """Let a workload drain the pool at each rate above 0 (units) and recompute `empty_at`.

        A workload that is listed already changes nothing. Raises NotFiniteError if a rate is NaN or infinite, or the
        sum could not be held in a double.
        """
        self._require_finite(f"what workload {workload_id} uses", cu, su, ipv4u)
        workload_ids = self.active_workload_ids or []
        if workload_id in workload_ids:
            return
        active = _raised(self._active, (cu, su, ipv4u))
        self._become(self._left_at(now), active, now=now)
        self.active_workload_ids = [*workload_ids, workload_id]

    def remove_workload(self, workload_id: int, cu: float, su: float, ipv4u: float, *, now: int) -> None:
        """Stop a workload from draining the pool at each rate above 0 (units) and recompute `empty_at`.

        A workload that is not listed changes nothing. The last id takes the place of the removed one. A rate that is
        lowered below `RATE_DUST` becomes 0; rates that are not lowered keep their value, dust included. Raises
        NotFiniteError if a rate is NaN or infinite.
        """
        self._require_finite(f"what workload {workload_id} uses", cu, su, ipv4u)
        workload_ids = self.active_workload_ids or []
        if workload_id not in workload_ids:
            return
        active = _lowered(self._active, (cu, su, ipv4u))
        self._become(self._left_at(now), active, now=now)
        *kept, last = workload_ids
        if last != workload_id:
            kept[kept.index(workload_id)] = last
        self.active_workload_ids = kept

    def recount(self, workload_ids: Iterable[int] | None, active: Amounts, *, now: int) -> None:
        """Replace the workloads and their total rates `active`, and recompute `empty_at`.

        The use until `now` is deducted at the former rates. Raises NotFiniteError if a rate is NaN or infinite.
        """
        self._become(self._left_at(now), active, now=now)
        self.active_workload_ids = None if workload_ids is None else list(workload_ids)

    def allowed_in_pool(self, node_id: str) -> bool:
        """Return whether workloads on that node may be deployed in the pool."""
        return self.node_ids is not None and node_id in self.node_ids

    def to_json(self) -> dict[str, Any]:
        """Return the pool as JSON, names and order as in the explorer; an array that was null stays null."""
        written = asdict(self)
        del written["missing"]
        return written

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read a pool leniently: a missing field is 0, or null for an array, and unknown fields are ignored.

        Raises CapacityError, naming the field that is of another type, and NotFiniteError.
        """
        return cls.read(document, id_field="pool_id", error=CapacityError)

    @classmethod
    def read(cls, document: Mapping[str, Any], *, id_field: str, error: type[PoolDaemonError]) -> Self:
        """Read a pool with its id in the field `id_field`, the only required one.

        Raises `error`, naming the field that is of another type, and NotFiniteError.
        """
        missing = frozenset(name for name, _, _ in FIELDS if name not in document)
        values: dict[str, Any] = {
            name: zero if name in missing else read(document, name, error) for name, read, zero in FIELDS
        }
        return cls(pool_id=fields.whole(document, id_field, error), missing=missing, **values)

    def _left_at(self, now: int) -> Amounts:
        elapsed_seconds = now - self.last_updated
        if elapsed_seconds < 0:
            return self._left
        # If the use overflows to infinity, it exceeds what any pool holds: nothing is left.
        return (
            max(0.0, self.cus - self.active_cu * elapsed_seconds),
            max(0.0, self.sus - self.active_su * elapsed_seconds),
            max(0.0, self.ipv4us - self.active_ipv4 * elapsed_seconds),
        )

    def _become(self, left: Amounts, active: Amounts, *, now: int) -> None:
        self._require_finite("what would be left or active", *left, *active)
        self.cus, self.sus, self.ipv4us = left
        self.active_cu, self.active_su, self.active_ipv4 = active
        self.last_updated = max(now, self.last_updated)
        self.empty_at = min(
            runs_out_at(amount, rate, self.last_updated) for amount, rate in zip(left, active, strict=True)
        )

    def _require_finite(self, what: str, *numbers: float) -> None:
        if not all_finite(numbers):
            shown = ", ".join(map(str, numbers))
            raise NotFiniteError(f"pool {self.pool_id}: {what} must be finite, not {shown}")


def new_pool(pool_id: int, owner_tid: int, sponsor_tid: int, node_ids: list[str] | None, *, now: int) -> Pool:
    """Return an empty pool without drain; id 0 is replaced by a new id at the first save."""
    return Pool(
        pool_id=pool_id,
        cus=0.0,
        sus=0.0,
        ipv4us=0.0,
        node_ids=None if node_ids is None else list(node_ids),
        last_updated=now,
        active_cu=0.0,
        active_su=0.0,
        active_ipv4=0.0,
        empty_at=NEVER,
        customer_tid=owner_tid,
        sponsor_tid=sponsor_tid,
        active_workload_ids=[],
    )


def _raised(amounts: Amounts, by: Amounts) -> Amounts:
    a, b, c = amounts
    return a + max(by[0], 0.0), b + max(by[1], 0.0), c + max(by[2], 0.0)


def _lowered(active: Amounts, by: Amounts) -> Amounts:
    a, b, c = (_less(rate, given) if given > 0 else rate for rate, given in zip(active, by, strict=True))
    return a, b, c


def _less(rate: float, given: float) -> float:
    left = rate - given
    return 0.0 if left < RATE_DUST else left
