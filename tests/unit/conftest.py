"""How the property tests run, and what tests of the telemetry share."""

import pytest
from hypothesis import settings
from telemetry_scene import new_observer
from virtual_clock import NOW, VirtualClock

from pool_daemon.telemetry.observer import Observer

# A slow example says something about the machine, not about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture
def clock() -> VirtualClock:
    """Show an instant until a test passes time."""
    return VirtualClock(NOW)


@pytest.fixture
def observer(clock: VirtualClock) -> Observer:
    """Observe with that clock."""
    return new_observer(clock)
