"""Long work in short pieces: the loop goes round in between."""

import asyncio

from virtual_time import in_virtual_time

from pool_daemon.store.reconciliation import SLICE, _unhurried


@in_virtual_time
async def test_others_run_after_each_slice() -> None:
    worked_through = 0
    seen: list[int] = []

    async def other() -> None:
        while True:
            seen.append(worked_through)
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    async for _ in _unhurried(range(10 * SLICE)):
        worked_through += 1
    running.cancel()
    assert seen == [number * SLICE for number in range(1, 11)]
