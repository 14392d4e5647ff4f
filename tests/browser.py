"""Headless Chromium, driven through its DevTools over a pair of pipes: no port, no driver, no library."""

import base64
import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deadline import wait_until

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)

COMPLAINTS = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")


class Browser:
    """One page of a browser; it remembers everything that the page's console was told."""

    def __init__(self, *, to_browser: int, from_browser: int) -> None:
        self.console: list[str] = []
        self._to_browser = to_browser
        self._messages = _messages(from_browser)
        self._numbers = itertools.count(1)
        self._session: str | None = None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and wait for its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        answer = self._wait_for_message("id", number)
        assert "error" not in answer, answer["error"]
        result: dict[str, Any] = answer["result"]
        return result

    def _wait_for_message(self, key: str, value: object) -> dict[str, Any]:
        """Read messages until one has that value; note what the console was told meanwhile."""
        for message in self._messages:
            if message.get("method") in COMPLAINTS:
                self.console.append(json.dumps(message["params"]))
            if message.get(key) == value:
                return message
        raise AssertionError("the browser is gone")

    def show(self, *, width: int, height: int, scheme: str, scale: float = 1) -> None:
        """Give the page a size, and a person who likes it light or dark."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def go(self, url: str) -> None:
        """Load a page, and wait until that is done."""
        assert "errorText" not in self.command("Page.navigate", url=url)
        self._wait_for_message("method", "Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Compute an expression in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Read what a person sees of the first element that a selector finds."""
        element = f"document.querySelector({json.dumps(selector)})"
        return str(self.evaluate(f"{element}?.innerText ?? {element}?.textContent ?? ''"))

    def wait_for(self, expression: str, *, within_seconds: float = 10) -> None:
        """Wait until an expression is true in the page."""
        wait_until(lambda: self.evaluate(expression), within_seconds=within_seconds, what=expression)

    def screenshot(self, path: Path) -> None:
        """Take a picture of the page, as far as it is in the window."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Start Chromium with nothing of anybody's in it."""
    to_browser, from_browser = os.pipe(), os.pipe()
    # The browser reads from descriptor 3 and writes to 4, wherever ours happen to be.
    script = f'exec chromium "$@" 3<&{to_browser[0]} 4>&{from_browser[1]}'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            ["/bin/bash", "-c", script, "browser", *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(to_browser[0], from_browser[1]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Browser(to_browser=to_browser[1], from_browser=from_browser[0])
        finally:
            os.close(to_browser[1])
            os.close(from_browser[0])
            process.kill()
            process.wait()


def _messages(descriptor: int) -> Iterator[dict[str, Any]]:
    rest = b""
    while chunk := os.read(descriptor, 1 << 20):
        *messages, rest = (rest + chunk).split(b"\0")
        yield from map(json.loads, messages)
