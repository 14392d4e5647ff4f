import re
from pathlib import Path

from pool_daemon import wiring
from pool_daemon.settings import Settings
from pool_daemon.settings.sections import Brake, Clock, Database, Log, Reconcile
from pool_daemon.settings.settings import FIXED, RELOADABLE, LiveSettings


def test_a_view_follows_what_is_put_in_force() -> None:
    live = LiveSettings(Settings())
    brake = live.view(lambda now: now.brake)
    assert brake.min_pools == 100
    live.replace(Settings(brake=Brake(min_pools=7)))
    assert brake.min_pools == 7


def test_it_tells_what_changed_and_what_has_to_wait_for_a_restart() -> None:
    live = LiveSettings(Settings())
    changed, waiting = live.replace(
        Settings(
            clock=Clock(check_seconds=9),
            log=Log(level="debug", format="json"),
            reconcile=Reconcile(enabled=False),
            database=Database(name="other"),
        )
    )
    assert sorted(changed) == ["clock.check_seconds", "log.level"]
    assert sorted(waiting) == ["database.name", "log.format", "reconcile.enabled"]


def test_what_has_to_wait_stays_as_it_is() -> None:
    live = LiveSettings(Settings())
    live.replace(Settings(database=Database(name="other")))
    assert live.current.database.name == "explorer"
    assert live.replace(Settings(database=Database(name="other")))[1] == ["database.name"]


def test_what_a_reload_changes_is_what_the_parts_read_anew() -> None:
    """Else a reload would say that a setting is in force which no part reads, or no reload would reach a view."""
    source = Path(wiring.__file__).read_text(encoding="utf-8")
    assert set(re.findall(r"live\.(?:view\(lambda now: now|current)\.(\w+)", source)) == RELOADABLE


def test_a_field_of_a_reloadable_section_that_waits_stays_as_it_is_and_is_named_each_time() -> None:
    live = LiveSettings(Settings())
    for name, field in sorted(FIXED):
        fresh = Settings()
        old = getattr(getattr(fresh, name), field)
        new = not old if isinstance(old, bool) else "json" if isinstance(old, str) else old + 1
        settings = fresh.model_copy(update={name: getattr(fresh, name).model_copy(update={field: new})})
        for _ in range(2):
            assert live.replace(settings) == ([], [f"{name}.{field}"])
            assert getattr(getattr(live.current, name), field) == old
