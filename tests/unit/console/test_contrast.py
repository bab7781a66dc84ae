"""Can everybody read it? Text keeps 4.5 to 1 on whatever it stands on, in both themes (WCAG 2.2, 1.4.3, level AA)."""

import itertools

import pytest

from godwit.server.console.theme import DARK, LIGHT

GROUNDS = ("ground", "surface", "raised", "sunken")
INKS = ("ink", "ink-soft", "ink-faint", "accent", "good", "warn", "bad")
WASHES = (("accent", "accent-wash"), ("good", "good-wash"), ("warn", "warn-wash"), ("bad", "bad-wash"))
PAIRS = [*itertools.product(INKS, GROUNDS), *WASHES, ("accent-ink", "accent"), ("ground", "ink")]
"""(text, what it stands on); the last is a toast."""


def luminance(colour: str) -> float:
    """Return the relative luminance of `#rrggbb`, as WCAG defines it."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_the_measure_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(theme: dict[str, str]) -> None:
    weak = {
        f"{ink} on {ground}": round(contrast(theme[ink], theme[ground]), 2)
        for ink, ground in PAIRS
        if contrast(theme[ink], theme[ground]) < 4.5
    }
    assert not weak


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_what_shows_the_focus_and_where_things_are_can_be_seen(theme: dict[str, str]) -> None:
    """WCAG 2.2, 1.4.11 and 2.4.13: 3 to 1 for the ring around what has the focus, and the dot of what is offline."""
    for ground in GROUNDS:
        assert contrast(theme["accent"], theme[ground]) >= 3
    assert contrast(theme["idle"], theme["surface"]) >= 3
