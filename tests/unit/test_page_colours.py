"""The colours of the page: whoever sees little can read every text on every ground."""

import re

import pytest

from pool_daemon.telemetry.endpoint.page import PAGE

LEGIBLE = 4.5
"""The contrast that the WCAG ask for (level AA)."""

GROUNDS = {
    "ink": ("ground", "sheet", "wash", "lostwash", "badwash"),
    "quiet": ("ground", "sheet"),
    "accent": ("ground", "sheet", "lostwash", "badwash"),
    "soon": ("ground", "sheet", "lostwash", "badwash"),
    "good": ("ground", "sheet"),
    "bad": ("ground", "sheet", "badwash"),
    "lost": ("sheet", "lostwash"),
    "sheet": ("bad",),
}
"""The colours of texts, and what they stand on."""


def palettes() -> dict[str, dict[str, str]]:
    light, dark, *_ = re.findall(r":root \{(.*?)\}", PAGE.decode(), re.DOTALL)
    return {name: dict(re.findall(r"--(\w+): (#\w{6});", text)) for name, text in (("light", light), ("dark", dark))}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_legible(scheme: str) -> None:
    palette = palettes()[scheme]
    ratios = {
        f"{text} on {ground}": contrast(palette[text], palette[ground]) for text in GROUNDS for ground in GROUNDS[text]
    }
    assert {name: round(ratio, 2) for name, ratio in ratios.items() if ratio < LEGIBLE} == {}


def test_no_colour_is_forgotten_in_the_dark() -> None:
    light, dark = palettes().values()
    assert set(light) == set(dark) >= {*GROUNDS, *(ground for grounds in GROUNDS.values() for ground in grounds)}
