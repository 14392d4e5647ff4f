"""The status page: one document with its own style and script, and the policy that allows nothing else."""

import base64
import hashlib
from importlib.resources import files
from typing import Final

SCRIPTS: Final = ("base.js", "hero.js", "timeline.js", "parts.js", "view.js", "main.js")
"""The parts of the script, in their order."""


def _read(name: str) -> str:
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the hash by which a content security policy identifies an inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE: Final = _read("page.css")
_SCRIPT: Final = "\n".join(map(_read, SCRIPTS))

PAGE: Final = _read("page.html").replace("/* page.css */", _STYLE).replace("/* page.js */", _SCRIPT).encode()

POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""Allowed are the page's own style and script, by their hashes, requests to this daemon alone, and the inlined icon."""
