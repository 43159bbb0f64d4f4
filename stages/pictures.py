"""Pictures of results as SVG, without a plotting library: values with their intervals, and the loss of a training.

Pure functions of numbers and labels, the same bytes for the same input. They stand on a ground of their own, white or (where the reader's
system asks for it) dark, so they can be read on any page. Labels are escaped: a name that is markup stays text.

>>> picture = intervals([Bar("F16", 42.9, 40.6, 45.3)], title="Perplexity", unit="lower is better")
>>> picture.startswith("<svg "), "<script" in intervals([Bar("<script>", 1.5, None, None)], title="x", unit="")
(True, False)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from stages.errors import InputError

_STYLE = (
    ".ground{fill:#ffffff;stroke:#d0d7de}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d8dee4}.axis{stroke:#818b98}"
    ".own{stroke:#0969da;fill:#0969da}.other{stroke:#59636e;fill:#59636e}.line{stroke:#0969da;fill:none}"
    "@media (prefers-color-scheme:dark){.ground{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}.faint{fill:#9198a1}.grid{stroke:#2a313c}"
    ".axis{stroke:#656c76}.own{stroke:#4493f8;fill:#4493f8}.other{stroke:#9198a1;fill:#9198a1}.line{stroke:#4493f8}}"
)
_FONT = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
_WIDTH, _ROW, _TOP, _BOTTOM, _MARGIN = 720, 30, 72, 52, 24
_LETTER = 7.4
"""Width of a letter at 13 pixels, on the safe side."""
_LONGEST = 34


@dataclass(frozen=True, slots=True)
class Bar:
    """One measured value.

    Attributes:
        label: what was measured.
        value: the estimate. low, high: its interval; None when there is none.
        own: what the picture is about, against what it is compared with.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    own: bool = True


def intervals(bars: Sequence[Bar], *, title: str, unit: str, marks: Sequence[tuple[float, str]] = (), signed: bool = False) -> str:
    """A row for each value: a point, its interval as a line with ends, the number beside it.

    Args:
        bars: in order, from the top; at least one.
        title: over the picture.
        unit: under the axis: what the numbers are, and which side is better.
        marks: at most two lines across the rows: where, and what stands over it.
        signed: numbers have their sign, also when it is a plus.

    Raises:
        InputError: nothing to draw, or a number that is not finite.
    """
    numbers = [number for bar in bars for number in (bar.value, bar.low, bar.high) if number is not None]
    _refuse(numbers)
    numbers += [place for place, _ in marks]
    texts = [_short(bar.label) for bar in bars]
    shown = [_with_interval(bar, "+" if signed else "") for bar in bars]
    left = _MARGIN + 12 + max(map(len, texts)) * _LETTER
    right = _WIDTH - _MARGIN - 12 - max(map(len, shown)) * _LETTER
    low, high, ticks = _scale(min(numbers), max(numbers))
    bottom = _TOP + _ROW * len(bars)

    def at(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    parts = _frame(bottom + _BOTTOM, title)
    for tick in ticks:
        parts.append(f'<line class="grid" x1="{at(tick):.1f}" y1="{_TOP}" x2="{at(tick):.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="faint" x="{at(tick):.1f}" y="{bottom + 18}" text-anchor="middle">{_number(tick)}</text>')
    ordered = sorted(marks)
    for number, (place, label) in enumerate(ordered):
        # Two labels stand away from each other, however near their lines are.
        anchor, shift = ("middle", 0) if len(ordered) == 1 else ("end", 4) if number == 0 else ("start", -4)
        parts.append(f'<path class="axis" stroke-width="1.4" stroke-dasharray="4 3" d="M{at(place):.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text class="faint" x="{at(place) + shift:.1f}" y="{_TOP - 6}" text-anchor="{anchor}">{escape(label)}</text>')
    for number, bar in enumerate(bars):
        y, kind = _TOP + _ROW * (number + 0.5), "own" if bar.own else "other"
        parts.append(f'<text class="text" x="{left - 12:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{escape(texts[number])}</text>')
        if bar.low is not None and bar.high is not None:
            a, b = at(bar.low), at(bar.high)
            strokes = f"M{a:.1f} {y:.1f}H{b:.1f}M{a:.1f} {y - 5:.1f}v10M{b:.1f} {y - 5:.1f}v10"
            parts.append(f'<path class="{kind}" stroke-width="1.6" d="{strokes}"/>')
        parts.append(f'<circle class="{kind}" cx="{at(bar.value):.1f}" cy="{y:.1f}" r="4.5"/>')
        parts.append(f'<text class="text" x="{right + 12:.1f}" y="{y + 4.5:.1f}">{escape(shown[number])}</text>')
    parts.append(f'<text class="faint" x="{(left + right) / 2:.1f}" y="{bottom + 38}" text-anchor="middle">{escape(unit)}</text>')
    return "".join([*parts, "</svg>\n"])


def loss(points: Sequence[tuple[int, float]], *, title: str) -> str:
    """The loss of a training: a thin line of what was noted, a thick one of its running mean.

    Args:
        points: (step, mean loss per token in nats), in the order of the steps; at least two.
        title: over the picture.

    Raises:
        InputError: fewer than two points, steps that do not rise, or a number that is not finite.
    """
    if len(points) < 2 or any(b[0] <= a[0] for a, b in itertools.pairwise(points)):
        raise InputError("a loss curve needs at least two points, and steps that rise")
    _refuse([value for _, value in points])
    low, high, ticks = _scale(min(value for _, value in points), max(value for _, value in points))
    left, right, bottom = _MARGIN + 44.0, float(_WIDTH - _MARGIN), _TOP + 220
    first, last = points[0][0], points[-1][0]

    def place(step: float, value: float) -> str:
        return (
            f"{left + (step - first) / (last - first) * (right - left):.1f} {bottom - (value - low) / (high - low) * (bottom - _TOP):.1f}"
        )

    parts = _frame(bottom + _BOTTOM, title)
    for tick in ticks:
        y = float(place(first, tick).split()[1])
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="faint" x="{left - 8:.1f}" y="{y + 4.5:.1f}" text-anchor="end">{_number(tick)}</text>')
    steps = [step for step in _ticks(first, last) if first <= step <= last]
    for step in steps:
        x = place(step, low).split()[0]
        parts.append(f'<text class="faint" x="{x}" y="{bottom + 18}" text-anchor="middle">{step:,.0f}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{left:.1f} {_TOP}V{bottom}H{right:.1f}"/>')
    parts.append(f'<path class="line" stroke-opacity="0.35" d="M{"L".join(place(*point) for point in points)}"/>')
    parts.append(f'<path class="line" stroke-width="2" d="M{"L".join(place(*point) for point in _smooth(points))}"/>')
    words = f"optimiser steps; loss in nats per token: {points[0][1]:.2f} at step {first:,}, {points[-1][1]:.2f} at step {last:,}"
    parts.append(f'<text class="faint" x="{(left + right) / 2:.1f}" y="{bottom + 38}" text-anchor="middle">{words}</text>')
    return "".join([*parts, "</svg>\n"])


def _frame(height: int, title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'font-family="{_FONT}" font-size="13"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>'
        f'<text class="text" x="{_MARGIN}" y="34" font-size="16" font-weight="600">{escape(title)}</text>'
    ]


def _refuse(numbers: Sequence[float]) -> None:
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError("a picture needs at least one number, and finite ones")


def _short(label: str) -> str:
    return label if len(label) <= _LONGEST else label[: _LONGEST - 1] + "…"


def _with_interval(bar: Bar, sign: str) -> str:
    numbers = [number for number in (bar.value, bar.low, bar.high) if number is not None]
    largest = max(map(abs, numbers))
    places = 0 if largest >= 1000 else 1 if largest >= 10 else 2
    value, *ends = (f"{number:{sign},.{places}f}" for number in numbers)
    return f"{value}  [{', '.join(ends)}]" if len(ends) == 2 else value


def _number(value: float) -> str:
    """A place on an axis: no more decimals than it has.

    >>> [_number(value) for value in (0.0, 40.0, 2.5, -10.0, 0.0025, 12000.0)]
    ['0', '40', '2.5', '-10', '0.0025', '12,000']
    """
    return f"{value:,.6f}".rstrip("0").rstrip(".")


def _ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Round numbers from at most `low` to at least `high`."""
    span = (high - low) or abs(high) or 1.0
    raw = span / (most - 1)
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * (1 - 1e-9))
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(start, stop + 1)]


def _scale(low: float, high: float) -> tuple[float, float, list[float]]:
    """The ends of an axis, and its ticks: a little air on both sides, whether the interval is wide or nothing."""
    air = (high - low) * 0.04 or abs(high) * 0.05 or 1.0
    ticks = _ticks(low - air, high + air)
    return ticks[0], ticks[-1], ticks


def _smooth(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """The mean of the neighbours of each point, over a twentieth of the curve."""
    reach = len(points) // 40
    values = [value for _, value in points]
    means = []
    for place, (step, _) in enumerate(points):
        near = values[max(0, place - reach) : place + reach + 1]
        means.append((step, math.fsum(near) / len(near)))
    return means
