"""Pictures: well-formed, readable on white and on dark, with intervals, the same for the same numbers; labels stay text."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.errors import InputError
from stages.pictures import Bar, intervals, loss

SVG = "{http://www.w3.org/2000/svg}"
BARS = [Bar("base F16", 44.6, 31.9, 62.5, own=False), Bar("this model F16", 47.6, 34.2, 66.2), Bar("no interval", 50.0, None, None)]


def drawn(picture: str) -> ElementTree.Element:
    """The picture as a reader of XML sees it."""
    return ElementTree.fromstring(picture)


def texts(picture: str) -> list[str]:
    """What is written in it."""
    return [element.text or "" for element in drawn(picture).iter(f"{SVG}text")]


def test_every_value_has_a_point_a_number_and_its_interval() -> None:
    """Three values, three points; two have an interval, and say it."""
    picture = intervals(BARS, title="Perplexity", unit="lower is better")
    assert len(list(drawn(picture).iter(f"{SVG}circle"))) == 3
    assert {"44.6  [31.9, 62.5]", "47.6  [34.2, 66.2]", "50.0"} <= set(texts(picture))
    assert {"base F16", "this model F16", "no interval", "Perplexity", "lower is better"} <= set(texts(picture))


def test_it_has_a_ground_of_its_own_and_a_dark_form() -> None:
    """Readable on any page: text against its own ground, and other colours where the reader's system is dark."""
    picture = intervals(BARS, title="x", unit="y")
    assert "prefers-color-scheme:dark" in picture
    assert drawn(picture).find(f"{SVG}rect") is not None
    for light, dark in re.findall(r"\.text{fill:(#\w+)}.*?\.text{fill:(#\w+)}", picture):
        assert contrast(light, "#ffffff") > 7
        assert contrast(dark, "#0d1117") > 7


def contrast(one: str, other: str) -> float:
    """Of two colours, as WCAG 2 defines it."""

    def luminance(color: str) -> float:
        parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_labels_stay_text() -> None:
    """Markup in a label, a title or a unit is written out."""
    hostile = "</text><script>alert(1)</script>&amp;\"'"
    picture = intervals([Bar(hostile, 1.0, None, None)], title=hostile, unit=hostile, marks=[(1.0, hostile)])
    assert {element.tag for element in drawn(picture).iter()} == {
        f"{SVG}{name}" for name in ("svg", "title", "style", "rect", "text", "line", "path", "circle")
    }
    assert hostile in texts(picture)


def test_differences_have_signs_and_marks() -> None:
    """A limit and the zero are lines with labels that do not lie on each other; plus and minus are shown."""
    bars = [Bar("a", -0.36, -0.58, -0.15), Bar("b", 6.58, 4.13, 9.09)]
    picture = intervals(bars, title="x", unit="y", marks=[(10.0, "limit"), (0.0, "none")], signed=True)
    assert {"-0.36  [-0.58, -0.15]", "+6.58  [+4.13, +9.09]"} <= set(texts(picture))
    anchors = {
        element.text: element.get("text-anchor") for element in drawn(picture).iter(f"{SVG}text") if element.text in ("limit", "none")
    }
    assert anchors == {"none": "end", "limit": "start"}


@given(
    st.lists(
        st.tuples(
            st.floats(-1e6, 1e6),
            st.floats(0, 1e5),
            st.text(max_size=60, alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_the_numbers_everything_is_inside(values: list[tuple[float, float, str]]) -> None:
    """No point lies outside, and the same numbers give the same bytes."""
    bars = [Bar(label, value, value - width, value + width) for value, width, label in values]
    picture = intervals(bars, title="t", unit="u")
    assert picture == intervals(bars, title="t", unit="u")
    root = drawn(picture)
    width = float(root.get("width", "0"))
    assert all(0 <= float(circle.get("cx", "-1")) <= width for circle in root.iter(f"{SVG}circle"))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_drawn(value: float) -> None:
    """NaN and infinity are refused, in a value, an interval, a loss."""
    with pytest.raises(InputError):
        intervals([Bar("a", value, None, None)], title="t", unit="u")
    with pytest.raises(InputError):
        intervals([Bar("a", 1.0, value, 2.0)], title="t", unit="u")
    with pytest.raises(InputError):
        loss([(1, 1.0), (2, value)], title="t")


def test_nothing_is_no_picture() -> None:
    """No values, or a curve of one point."""
    with pytest.raises(InputError):
        intervals([], title="t", unit="u")
    with pytest.raises(InputError):
        loss([(1, 1.0)], title="t")
    with pytest.raises(InputError):
        loss([(2, 1.0), (1, 1.0)], title="t")


def test_a_loss_curve_goes_from_the_first_step_to_the_last() -> None:
    """What was noted and its running mean, both from left to right; the ends are said in words."""
    points = [(step * 25, 7.5 * 0.99**step) for step in range(1, 281)]
    picture = loss(points, title="Loss")
    paths = [element.get("d", "") for element in drawn(picture).iter(f"{SVG}path") if element.get("class") == "line"]
    assert len(paths) == 2
    for path in paths:
        places = [float(place) for place in re.findall(r"[ML]([\d.]+) ", path)]
        assert places == sorted(places)
        assert len(places) == 280
    assert any("7.42 at step 25" in text and "0.45 at step 7,000" in text for text in texts(picture))
