"""The settings in force, some of which may change while the daemon runs."""

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from pool_daemon.settings.sections import Section, Settings

RELOADABLE: Final = frozenset({"expiry", "stream", "clock", "brake", "retry", "reconcile", "log"})
"""Sections that parts read anew at each use: bounds, rates and intervals."""

FIXED: Final = frozenset(
    {
        ("expiry", "max_sleep_seconds"),
        ("expiry", "full_scan_seconds"),
        ("expiry", "drain_seconds"),
        ("reconcile", "enabled"),
        ("log", "format"),
    }
)
"""Fields of those sections that are read only at the start."""

S = TypeVar("S", bound=Section)


class LiveSettings:
    """Holds the settings in force, and returns views of their sections that follow a reload."""

    def __init__(self, settings: Settings) -> None:
        self.current = settings

    def view(self, section: Callable[[Settings], S]) -> S:
        """Return a view of that section that always reads the settings in force."""
        return cast("S", _View(self, section))

    def replace(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Put new settings in force, as far as that is possible without a restart.

        Returns the dotted names of the fields that changed, and of those that need a restart.
        """
        changed: list[str] = []
        waiting: list[str] = []
        for name, new in settings:
            for field in type(new).model_fields:
                if getattr(new, field) != getattr(getattr(self.current, name), field):
                    now = name in RELOADABLE and (name, field) not in FIXED
                    (changed if now else waiting).append(f"{name}.{field}")
        self.current = self.current.model_copy(update={name: getattr(settings, name) for name in RELOADABLE})
        return changed, waiting


class _View:
    def __init__(self, live: LiveSettings, section: Callable[[Settings], Section]) -> None:
        self._live = live
        self._section = section

    def __getattr__(self, name: str) -> Any:
        return getattr(self._section(self._live.current), name)
