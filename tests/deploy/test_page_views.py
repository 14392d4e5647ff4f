"""Search and the views of single pools and owners, in a real browser."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from browser import Browser
from deploy.page_scene import Scene, open_page
from telemetry_scene import gone, read_in_a_loop, upcoming

from pool_daemon.errors import PoolNotFoundError
from pool_daemon.guards.leadership import Role
from pool_daemon.store.density import HORIZON, Density, Interval
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.telemetry.endpoint.pool_views import PoolViews

LONG = "a_very_long_word_without_a_single_space_" * 8
HOSTILE = f"<img src=x onerror=window.hacked=true>\u202e\x1b[2J{LONG}"
SEEN = HOSTILE.replace("\u202e", "\\u202e").replace("\x1b", "\\u001b")

POOL: dict[str, Any] = {
    "pool": "1007",
    "owner": "9223372036854775807",
    "is_compared": True,
    "facts": [["pool", "1007"], ["owner", "9223372036854775807, no sponsor"], ["nodes", "1"], ["", "node-1"]],
    "resource_columns": ["resource", "drained", "left", "which is", "runs out (UTC)"],
    "resources": [["compute", "2", "6.72k", "2 CU for 56 min", "2026-11-30 17:12:33, in 56 min"]],
    "purchase_head": "to last 30 d more, until 2026-12-30 17:12:33 UTC, buy (unit seconds):",
    "purchase": [["compute", "5,184,000", "2 CU for 30 d"]],
    "workloads_head": "2 listed; by next action: 1 deploy, 1 delete",
    "workload_columns": ["workload", "type", "next", "cu", "su", "ipv4u", ""],
    "workloads": [["501", "container", "deploy", "1", "0", "0", ""], ["502", "volume", "delete", "0", "1", "0", "x"]],
    "more_workloads": 3,
    "problems": [],
    "story": [{"at": None, "date": "earlier", "text": "bought"}, {"at": 1, "date": "a date", "text": "topped up"}],
}
OWNER: dict[str, Any] = {
    "owner": "9223372036854775807",
    "pools": 1252,
    "is_counted": True,
    "is_sorted": False,
    "first": [{"pool_id": "-9223372036854775808", "empty_at": 1, "ends": "2026-11-30 17:12:33", "workloads": 3}],
}


class Reader:
    """Reads what a test decides, and remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.pool = dict(POOL)
        self.owner = dict(OWNER)

    async def __call__(self, kind: str, number: int) -> dict[str, Any]:
        self.asked.append((kind, number))
        if number == 5:
            raise PoolNotFoundError(f"pool 5: {HOSTILE}")
        return (self.pool if kind == "pools" else self.owner) | {"at": time.time()}


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def scene(browser: Browser, reader: Reader) -> Iterator[Scene]:
    with page_with_views(browser, reader) as scene:
        yield scene


@contextmanager
def page_with_views(browser: Browser, reader: Reader) -> Iterator[Scene]:
    views = PoolViews(read=reader)
    with read_in_a_loop(views), open_page(browser, pool_views=views) as scene:
        yield scene
        assert scene.browser.evaluate("window.hacked") is None
        assert [line for line in scene.browser.console if "Failed to load resource" not in line] == []


def look_up(scene: Scene, text: str, button: str) -> None:
    scene.browser.wait_for("!document.querySelector('#search').hidden")
    scene.browser.evaluate(
        f"document.querySelector('#lookup').value = '{text}'; document.querySelector('button[value={button}]').click()"
    )


def test_a_pool_is_found_by_its_id_and_told_of_as_by_the_commands(scene: Scene, reader: Reader) -> None:
    look_up(scene, " 1007 ", "pools")
    scene.wait_for_text("#viewbody", "It adds up.")
    assert scene.text("#viewname") == "Pool 1007"
    assert scene.browser.evaluate("document.activeElement.id") == "viewname"
    shown = scene.text("#viewbody")
    for text in ("node-1", "2 CU for 56 min", "5,184,000", "1 deploy, 1 delete", "container", "bought", "topped up"):
        assert text in shown
    assert "and 3 more: pool-daemon pools show 1007 --limit N" in shown
    assert scene.browser.evaluate("document.querySelector('.facts a').getAttribute('href')") == (
        "#owners/9223372036854775807"
    )
    assert reader.asked[0] == ("pools", 1007)


def test_an_owner_is_found_and_leads_to_his_pools_whatever_their_ids(scene: Scene, reader: Reader) -> None:
    look_up(scene, "9223372036854775807", "owners")
    scene.wait_for_text("#viewbody", "1,252 pools; the first 1 to run empty of those that were read")
    scene.browser.evaluate("document.querySelector('#viewbody a').click()")
    scene.wait_for_text("#viewname", "Pool -9223372036854775808")
    scene.wait_for_text("#viewbody", "What happened")
    assert list(dict.fromkeys(reader.asked)) == [("owners", 2**63 - 1), ("pools", -(2**63))]


def test_what_does_not_add_up_is_said_first(scene: Scene, reader: Reader) -> None:
    reader.pool |= {"problems": ["the pool has no document"], "is_compared": False}
    del reader.pool["facts"]
    look_up(scene, "1007", "pools")
    scene.wait_for_text("#viewbody", "This does not add up:")
    assert "the pool has no document" in scene.text("#viewbody .problems")
    assert "explain pool 1007" in scene.text("#viewbody")


def test_what_is_not_found_is_said_and_may_be_an_owner(scene: Scene) -> None:
    look_up(scene, "5", "pools")
    scene.wait_for_text("#viewbody", f"pool 5: {SEEN}")
    assert scene.browser.evaluate("document.querySelector('#viewbody a').getAttribute('href')") == "#owners/5"


@pytest.mark.parametrize("text", ["x", "1.5", "1" * 20, "../statusz", ""])
def test_what_is_no_id_is_not_asked_for(scene: Scene, reader: Reader, text: str) -> None:
    look_up(scene, text, "pools")
    assert scene.browser.evaluate("document.querySelector('#lookup').checkValidity()") is False
    scene.browser.evaluate(f"location.hash = 'pools/{text}'")
    assert scene.browser.evaluate("document.querySelector('#view').hidden") is True
    assert reader.asked == []


def test_without_a_view_the_page_asks_the_database_for_nothing(scene: Scene, reader: Reader) -> None:
    scene.observer.upcoming_seen([upcoming(17, in_seconds=600)])
    scene.wait_for_text("#timeline", "17")
    look_up(scene, "1007", "pools")
    scene.wait_for_text("#viewbody", "It adds up.")
    scene.browser.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }))")
    scene.browser.wait_for("document.querySelector('#view').hidden")
    asked = len(reader.asked)
    scene.observer.upcoming_seen([upcoming(18, in_seconds=600)])
    scene.wait_for_text("#timeline", "18")
    assert len(reader.asked) == asked <= 2


def test_pools_on_the_page_lead_to_their_views(scene: Scene) -> None:
    at = time.time()
    scene.observer.batch_committed([gone(1, 16, empty_at=at)], pools=1, seconds=0.1, at=at)
    scene.observer.upcoming_seen([upcoming(17, in_seconds=600)])
    scene.wait_for_text("#events", "pool 16")
    scene.browser.evaluate("document.querySelector('#events a').click()")
    scene.wait_for_text("#viewname", "Pool 16")
    scene.wait_for_text("#timeline", "17")
    scene.browser.evaluate(
        "document.querySelector(\"#timeline [data-pool='17']\").dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    scene.wait_for_text("#viewname", "Pool 17")
    scene.browser.evaluate("history.back()")
    scene.wait_for_text("#viewname", "Pool 16")


def test_a_standby_shows_pools_too(scene: Scene) -> None:
    scene.observer.role_seen(Role.STANDBY, leader="host-2:1:ff")
    scene.wait_for_text("#standby", "stands by")
    look_up(scene, "1007", "pools")
    scene.wait_for_text("#viewbody", "It adds up.")


def test_where_views_are_switched_off_there_is_no_search_and_no_link(browser: Browser) -> None:
    with open_page(browser) as scene:
        at = time.time()
        scene.observer.batch_committed([gone(1, 16, empty_at=at)], pools=1, seconds=0.1, at=at)
        scene.wait_for_text("#events", "pool 16")
        assert browser.evaluate("document.querySelector('#search').hidden") is True
        assert browser.evaluate("document.querySelectorAll('main [href^=\"#pools\"]').length") == 0


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("kind", ["pools", "owners"])
def test_everything_at_once_and_hostile_fits_any_window(scene: Scene, reader: Reader, width: int, kind: str) -> None:
    now = int(time.time())
    scene.browser.show(width=width, height=900, scheme="light")
    scene.observer.upcoming_seen([upcoming(2**62 + n, in_seconds=5 + 50 * n) for n in range(20)])
    ends = (Interval(now + 60 * n, now + 60 * (n + 1), 83) for n in range(60))
    scene.observer.expiring_counted(
        {"1h": 5000, "1d": 5000, "7d": 5000}, density=Density(now, now + HORIZON, tuple(ends))
    )
    scene.observer.batch_committed(
        [gone(each, 2**62 + each % 40, empty_at=now) for each in range(1250)], pools=40, seconds=0.1, at=now
    )
    scene.observer.put_on_hold("brake", detail=HOSTILE, pools=1203)
    scene.observer.quarantine_seen(99, [Quarantined(2**62, HOSTILE, 9, now, now + 60, "me")])
    reader.pool |= {"facts": [["pool", "7"], ["owner", f"9223372036854775807, {HOSTILE}"], [LONG, HOSTILE], ["", LONG]]}
    reader.pool |= {"problems": [HOSTILE], "story": [{"at": now, "date": LONG, "text": HOSTILE}] * 3}
    reader.pool |= {
        "resources": [[LONG] * 5],
        "workloads": [[HOSTILE] * 7],
        "workloads_head": LONG,
        "purchase_head": LONG,
    }
    reader.owner |= {"first": [{"pool_id": str(2**62), "ends": HOSTILE, "empty_at": 1, "workloads": 2**53}]}
    look_up(scene, "1007", kind)
    scene.wait_for_text("#viewbody", SEEN)
    scene.wait_for_text("#held", SEEN)
    scene.wait_for_text("#timeline", str(2**62))
    scene.wait_for_text("#ahead", " of ")
    assert not scene.scrolls_sideways()
    assert scene.cut() == []
    assert scene.browser.evaluate("document.querySelectorAll('main img').length") == 0
    assert "\u202e" not in scene.text("body")
