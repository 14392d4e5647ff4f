"""Long work in short pieces: everybody else has a turn in between."""

import asyncio

from virtual_time import in_virtual_time

from pool_daemon.store.overdue import PAUSE_SECONDS, SLICE, unhurried


@in_virtual_time
async def test_others_run_after_each_slice() -> None:
    worked_through = 0
    seen: list[int] = []

    async def other() -> None:
        while True:
            await asyncio.sleep(PAUSE_SECONDS)
            seen.append(worked_through)

    running = asyncio.create_task(other())
    await asyncio.sleep(0)
    async for _ in unhurried(range(10 * SLICE)):
        worked_through += 1
    running.cancel()
    assert seen == [number * SLICE for number in range(1, 11)]
