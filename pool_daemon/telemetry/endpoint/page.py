"""The page: its style and its script put into it, and the policy that lets nothing else run there."""

import base64
import hashlib
from importlib.resources import files
from typing import Final


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return what a content security policy calls an inline element of that content."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE: Final = _read("page.css")
_SCRIPT: Final = _read("page.js")

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
"""The page's own style and script, by their hashes; questions to this daemon alone; the icon that is in the page."""
