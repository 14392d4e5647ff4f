"""The page in a real browser: it shows what is so, keeps up with it, and says when it cannot."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from browser import Browser
from deploy.page_scene import Scene, open_page
from deploy.readme_pictures import play
from telemetry_scene import gone, make_ready, served, upcoming

from pool_daemon.clock import SystemClock
from pool_daemon.expiry.pass_report import PassReport
from pool_daemon.guards.leadership import Role
from pool_daemon.store.density import HORIZON, Density, Interval
from pool_daemon.store.events import RecordedPool
from pool_daemon.store.quarantine import Quarantined
from pool_daemon.telemetry.endpoint import Server
from pool_daemon.telemetry.observer import Observer

IN_ONE_LINE = "(number) => number.offsetHeight < 1.9 * parseFloat(getComputedStyle(number).fontSize)"


@pytest.fixture
def scene(browser: Browser) -> Iterator[Scene]:
    with open_page(browser) as scene:
        yield scene


@pytest.fixture
def spotless(scene: Scene) -> Iterator[Scene]:
    """Hold the page to a console without a word in it."""
    yield scene
    assert scene.browser.console == []


def test_it_shows_what_the_daemon_is_and_waits_for(spotless: Scene) -> None:
    assert spotless.text("#role") == "leader, term 7"
    assert spotless.text("#ready") == "ready"
    assert spotless.text("#identity") == "host-1:4711:a1b2c3"
    assert spotless.text("#countdown") == "nothing due"
    assert spotless.text("#problems") == ""
    assert "answered" in spotless.text("#vitals")


def test_it_counts_down_to_the_next_pool(spotless: Scene) -> None:
    first, second = upcoming(17, in_seconds=2 * 86_400 + 100), upcoming(18, in_seconds=8)
    spotless.observer.upcoming_seen([first])
    spotless.observer.armed(first.empty_at, pool_id=17)
    spotless.wait_for_text("#next", f"pool 17 of customer {first.customer_tid}")
    assert spotless.text("#countdown").startswith("2 d 00:01:")
    spotless.observer.upcoming_seen([second, first])
    spotless.observer.armed(second.empty_at, pool_id=18)
    spotless.wait_for_text("#countdown", "00:00:0")
    assert spotless.browser.evaluate("document.querySelector('#countdown').className") == "countdown soon"
    spotless.browser.wait_for("document.title.startsWith('now')", within_seconds=12)


def test_pools_stand_on_the_timeline_in_their_order(spotless: Scene) -> None:
    spotless.observer.upcoming_seen([upcoming(1000 + n, in_seconds=60 * 3**n) for n in range(8)])
    spotless.wait_for_text("#timeline", "1007")
    places = spotless.browser.evaluate(
        "[...document.querySelectorAll('#timeline .dot')].map((dot) => +dot.getAttribute('cx'))"
    )
    assert len(places) == 8
    assert places == sorted(places)


def test_of_five_thousand_pools_one_sees_the_next_by_name_and_all_as_a_band(spotless: Scene) -> None:
    now = int(time.time())
    ends = (Interval(now + 60 * n, now + 60 * (n + 1), 83 + n % 2) for n in range(60))
    spotless.observer.upcoming_seen([upcoming(1000 + n, in_seconds=5 + n) for n in range(20)])
    spotless.observer.expiring_counted({"1h": 5010}, density=Density(now, now + HORIZON, tuple(ends)))
    spotless.wait_for_text("#ahead", " of ")
    shown, total = (
        int(number.replace(",", "")) for number in re.findall(r"[\d,]+(?= of| pools)", spotless.text("#ahead"))
    )
    assert 10 <= shown <= 20
    assert 4950 <= total <= 5010
    assert spotless.text("#ahead").endswith("pools that run empty within 7 days")
    columns = "[...document.querySelectorAll('#timeline .density')]"
    heights = spotless.browser.evaluate(f"{columns}.map((column) => +column.getAttribute('height'))")
    assert len(heights) > 50
    assert heights[-5] > 4 * heights[5], "equally many a minute stand closer together further ahead"
    named = spotless.browser.evaluate(
        f"{columns}.map((one) => +one.textContent.match(/about ([\\d,]+) pools? from/)[1])"
    )
    assert sum(named) == pytest.approx(total, rel=0.05)


def test_a_count_that_is_not_whole_says_so(spotless: Scene) -> None:
    now = int(time.time())
    intervals = (Interval(now, now + 60, 600), Interval(now + 600, now + 660, 50_000))
    spotless.observer.expiring_counted({}, density=Density(now, now + 600, intervals))
    spotless.observer.upcoming_seen([upcoming(17, in_seconds=30)])
    spotless.wait_for_text("#ahead", "of more than 50,")
    assert spotless.text("#ahead").endswith("pools that run empty within 10 min")


def test_what_happens_appears_without_a_reload(spotless: Scene) -> None:
    now = int(time.time())
    spotless.browser.evaluate("window.sameDocument = true")
    spotless.observer.batch_committed([gone(1, 16, empty_at=now)], pools=1, seconds=0.1, at=now + 0.012)
    spotless.observer.pass_finished(PassReport(settled=1, decommissioned=1), seconds=0.2)
    spotless.wait_for_text("#events", "pool 16 cu ran out, 1 workload")
    assert "+12 ms" in spotless.text("#events")
    assert "+12 ms" in spotless.text("#timeline")
    assert "1 pool, 1 workload" in spotless.text("#passes")
    assert spotless.browser.evaluate("document.querySelectorAll('#bars .bar').length") == 1
    assert spotless.browser.evaluate("window.sameDocument") is True


def test_holds_and_quarantine_are_in_sight(spotless: Scene) -> None:
    spotless.observer.put_on_hold("brake", detail="they fell due at once", pools=1204)
    spotless.observer.quarantine_seen(
        23, [Quarantined(5100, "validation failed", 4, int(time.time()), int(time.time()) + 60, "me")]
    )
    spotless.wait_for_text("#problems", "1,204 pools held by the brake: they fell due at once")
    assert spotless.text("#waits") == "Not done"
    spotless.wait_for_text("#countdown", "1,204 pools held by the brake")
    spotless.browser.wait_for("document.title.startsWith('1,204 pools held')")
    assert "pool 5100\tvalidation failed" in spotless.text("#held")
    assert "next try " in spotless.text("#held")
    assert "and 22 more pools in quarantine" in spotless.text("#held")
    spotless.observer.taken_off_hold("brake")
    spotless.wait_for_text("#countdown", "23 pools in quarantine")
    spotless.observer.quarantine_seen(0, [])
    spotless.browser.wait_for("document.querySelector('#problems').hidden")
    spotless.wait_for_text("#countdown", "nothing due")


def test_destruction_does_not_look_like_calm(spotless: Scene) -> None:
    hero = "document.querySelector('#hero').className"
    assert spotless.browser.evaluate(hero) == "next "
    calm = spotless.browser.evaluate("getComputedStyle(document.querySelector('#hero')).backgroundColor")
    at = time.time()
    lost = [gone(number, 5000 + number % 300, empty_at=at) for number in range(1250)]
    spotless.observer.upcoming_seen([upcoming(17, in_seconds=100)])
    spotless.observer.armed(upcoming(17, in_seconds=100).empty_at, pool_id=17)
    spotless.observer.batch_committed(lost, pools=300, seconds=0.2, at=at)
    spotless.wait_for_text("#countdown", "1,250 workloads of 300 pools")
    assert spotless.text("#waits") == "Decommissioned in the last 5 minutes"
    assert spotless.text("#next") == "now 1,250 workloads a second"
    assert spotless.browser.evaluate(hero) == "next destroying"
    assert spotless.browser.evaluate("getComputedStyle(document.querySelector('#hero')).backgroundColor") != calm
    assert spotless.browser.evaluate("document.title") == "1,250 workloads decommissioned · pool-daemon"
    assert spotless.text("#thencount").startswith("00:01:")
    assert "pool 17" in spotless.text("#thennext")
    bars = spotless.browser.evaluate("[...document.querySelectorAll('#timeline .lost')].map((bar) => bar.textContent)")
    assert [bar.partition(" from ")[0] for bar in bars] == ["1,250 workloads of 300 pools decommissioned"]


def test_what_is_not_done_comes_before_what_was_done(spotless: Scene) -> None:
    at = time.time()
    spotless.observer.batch_committed([gone(1, 16, empty_at=at)], pools=1, seconds=0.2, at=at)
    spotless.observer.put_on_hold("brake", detail="they fell due at once", pools=3)
    spotless.wait_for_text("#countdown", "3 pools held by the brake")
    assert spotless.text("#next") == "1 workload of 1 pool decommissioned in the last 5 min"
    assert spotless.browser.evaluate("document.querySelector('#hero').className") == "next attention"
    spotless.observer.taken_off_hold("brake")
    spotless.wait_for_text("#countdown", "1 workload of 1 pool")


def test_a_standby_says_that_it_is_one_and_who_leads(spotless: Scene) -> None:
    spotless.observer.role_seen(Role.STANDBY, leader="host-2:1:ff")
    spotless.observer.backlog_counted(None)
    spotless.wait_for_text("#standby", "stands by: host-2:1:ff leads")
    assert "the leader's" in spotless.text("#vitals")
    spotless.browser.wait_for("document.title.startsWith('standby')")


def test_what_happened_on_another_day_has_its_date(spotless: Scene) -> None:
    at = time.time() - 3 * 86_400
    spotless.observer.recorded_events_seen([RecordedPool(16, at, ("cu",), 2)])
    spotless.wait_for_text("#events", "pool 16 cu ran out, 2 workloads")
    assert datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d ") in spotless.text("#events")


def test_a_dry_run_says_would(browser: Browser) -> None:
    observer = Observer(identity="me", version="0", clock=SystemClock(), dry_run=True)
    make_ready(observer)
    observer.role_seen(Role.DRY_RUN)
    observer.batch_committed([gone(1, 16, empty_at=time.time())], pools=1, seconds=0.1, at=time.time())
    observer.pass_finished(PassReport(settled=1, decommissioned=1), seconds=0.2)
    with served(observer) as server:
        browser.go(f"http://127.0.0.1:{server.port}/")
        browser.wait_for("document.querySelector('#events').innerText.includes('would be decommissioned')")
        assert "would be 1 pool, 1 workload" in browser.text("#passes")
        assert browser.text("#version").endswith("a dry run: nothing is written")
        browser.go("about:blank")


def test_what_others_wrote_is_text_and_nothing_else(spotless: Scene) -> None:
    hostile = "<img src=x onerror=alert(1)><script>window.hacked = true</script>"
    spotless.observer.unreadable("pool", document_id=hostile, reason=hostile)
    spotless.observer.put_on_hold("brake", detail=hostile)
    spotless.wait_for_text("#events", hostile)
    assert spotless.browser.evaluate("document.querySelectorAll('#events img, #problems img').length") == 0
    assert spotless.browser.evaluate("window.hacked") is None


def test_a_daemon_that_stops_answering_is_said_to_be_silent_and_one_that_is_back_is_not(scene: Scene) -> None:
    port = scene.server.port
    scene.server.stop()
    scene.wait_for_text("#silence", "The daemon has not answered for")
    assert scene.browser.evaluate("document.title") == "no answer · pool-daemon"
    back = Server(host="127.0.0.1", port=port, respond=scene.server._respond)
    back.start()
    try:
        scene.browser.wait_for("document.querySelector('#silence').hidden")
    finally:
        back.stop()


def test_nothing_from_elsewhere_can_run_or_load_in_it(scene: Scene) -> None:
    scene.browser.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), {textContent: 'window.hacked = true'}))"
    )
    assert scene.browser.evaluate("window.hacked") is None
    refused = scene.browser.evaluate("fetch('http://127.0.0.1:1/').then(() => 'went through', () => 'refused')")
    assert refused == "refused"
    assert any("Content Security Policy" in line for line in scene.browser.console)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_light_or_dark_as_its_reader_likes(spotless: Scene, scheme: str, tmp_path: Path) -> None:
    spotless.browser.show(width=1280, height=900, scheme=scheme)
    ground, ink = (
        sum(map(int, spotless.browser.evaluate(f"getComputedStyle(document.body).{name}.match(/\\d+/g)")[:3]))
        for name in ("backgroundColor", "color")
    )
    assert (ground > ink) == (scheme == "light")
    spotless.browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_a_narrow_timeline_still_names_the_pools_that_ran_empty_and_cuts_no_mark(spotless: Scene) -> None:
    now = int(time.time())
    spotless.browser.show(width=390, height=900, scheme="light")
    spotless.observer.batch_committed([gone(1, 516, empty_at=now - 60)], pools=1, seconds=0.1, at=now - 59)
    spotless.observer.upcoming_seen([upcoming(17, in_seconds=3590)])
    spotless.wait_for_text("#timeline", "516")
    spotless.wait_for_text("#timeline", "17")
    assert spotless.browser.evaluate(
        "[...document.querySelectorAll('#timeline text')].every((text) => { const box = text.getBBox(); "
        "return box.x >= 0 && box.x + box.width <= document.querySelector('#timeline').clientWidth; })"
    )


@pytest.mark.parametrize("width", [360, 760, 1280, 2560])
def test_no_width_of_the_window_makes_it_scroll_sideways(spotless: Scene, width: int) -> None:
    spotless.observer.put_on_hold("brake", detail="a_very_long_word_without_a_single_space_" * 20)
    spotless.observer.upcoming_seen([upcoming(10**15 + n, in_seconds=50 * 2**n) for n in range(20)])
    spotless.observer.expiring_counted({"1h": 999_999, "1d": 1_000_000, "7d": 1_000_000})
    spotless.browser.show(width=width, height=900, scheme="light")
    spotless.wait_for_text("#problems", "a_very_long_word")
    spotless.wait_for_text("#expiring", "999,999")
    spotless.browser.wait_for("document.documentElement.scrollWidth <= window.innerWidth", within_seconds=3)
    assert spotless.browser.evaluate(f"[...document.querySelectorAll('#expiring dd')].every({IN_ONE_LINE})")


def test_the_pictures_of_the_readme_can_be_taken_again(mongo_uri: str, database_name: str, tmp_path: Path) -> None:
    play(mongo_uri, database_name, tmp_path)
    for name in ("page-light.png", "page-dark.png"):
        assert (tmp_path / name).stat().st_size > 20_000
