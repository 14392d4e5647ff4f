"""What is measured: the rows of the table, in the sizes of a full run and of a quick one."""

from collections.abc import Sequence

from pool_daemon.bench.figures import Row
from pool_daemon.bench.storm import Storm, StormGrowth


def full() -> Sequence[Row]:
    """Return every row as the figures to reach are meant."""
    return (
        Storm(name="storm-pools", pools=10_000, rounds=3),
        Storm(name="storm-workloads", pools=100, workloads_each=1000),
        Storm(name="storm-one-pool", pools=1, workloads_each=20_000),
        StormGrowth(sizes=(1_000, 10_000, 100_000)),
    )


def quick() -> Sequence[Row]:
    """Return the same kinds of work, small enough for a look in between."""
    return (
        Storm(name="storm-pools", pools=2_000, patience_seconds=2),
        Storm(name="storm-workloads", pools=20, workloads_each=200, patience_seconds=2),
        Storm(name="storm-one-pool", pools=1, workloads_each=4_000, patience_seconds=2),
        StormGrowth(sizes=(200, 2_000)),
    )
