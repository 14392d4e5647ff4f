"""The page in a browser, before a daemon of which a test decides everything."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from browser import Browser
from deadline import wait_until
from telemetry_scene import make_ready, new_observer, served

from pool_daemon.telemetry.endpoint import Server
from pool_daemon.telemetry.endpoint.pool_views import PoolViews
from pool_daemon.telemetry.observer import Observer

INLINE = ("<span", "<a ", "<time", "<strong", "<b", "<title", "<style", "<script", "<text", "<noscript")
"""Elements without a width of their own; what contains them is looked at."""


@dataclass
class Scene:
    """A page and the daemon that it shows."""

    browser: Browser
    observer: Observer
    server: Server

    def text(self, selector: str) -> str:
        """Read what a person sees of an element."""
        return self.browser.text(selector)

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until a person sees that text in an element."""
        wait_until(lambda: text in self.text(selector), within_seconds=10, what=f"{text} in {selector}")

    def scrolls_sideways(self) -> bool:
        """Return whether something is wider than the window."""
        return bool(self.browser.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    def cut(self) -> list[str]:
        """Return the texts that are cut off at an edge of the window."""
        leaves = "[...document.body.querySelectorAll('*')].filter((each) => each.textContent)"
        is_cut = (
            "(each) => { const box = each.getBoundingClientRect(); return box.right > innerWidth || box.left < 0; }"
        )
        return [str(each) for each in self.browser.evaluate(f"{leaves}.filter({is_cut}).map((each) => each.outerHTML)")]


@contextmanager
def open_page(browser: Browser, *, pool_views: PoolViews | None = None) -> Iterator[Scene]:
    """Show the page of a ready leader in a window of a usual size."""
    observer = new_observer()
    make_ready(observer)
    browser.show(width=1280, height=900, scheme="light")
    with served(observer, pool_views=pool_views) as server:
        browser.console.clear()
        browser.go(f"http://127.0.0.1:{server.port}/")
        browser.wait_for("document.querySelector('#role').innerText !== ''")
        yield Scene(browser, observer, server)
        browser.go("about:blank")
