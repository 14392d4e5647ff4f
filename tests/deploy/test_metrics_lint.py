"""Prometheus' own tools on what the daemon gives them."""

from deploy.files import run
from telemetry_scene import gone, make_ready, new_observer

from pool_daemon.guards.leadership import Role


def test_promtool_finds_nothing_wrong_with_the_metrics() -> None:
    observer = new_observer()
    make_ready(observer)
    observer.armed(2_000_000_000, pool_id=17)
    observer.role_seen(Role.LEADER, term=7, leader="me")
    observer.expiring_counted({"1h": 1, "1d": 2, "7d": 3})
    observer.batch_committed([gone(1, 17, empty_at=0)], pools=1, seconds=0.1, at=0.02)
    observer.command_finished("find", 0.01, failed=True)
    _, text = observer.metrics.render()
    assert run("promtool", "check", "metrics", given=text.decode()) == ""
