"""The losses of a training as an SVG, drawn from its history alone; the same bytes for the same numbers, no plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from stages.errors import InputError

_STYLE = (
    ".ground{fill:#ffffff;stroke:#d0d7de}.text{fill:#1f2328}.faint{fill:#59636e}.grid{stroke:#d8dee4}.axis{stroke:#818b98}"
    ".line0{stroke:#0969da}.line1{stroke:#bc4c00}.line2{stroke:#1a7f37}.line3{stroke:#8250df}"
    "@media (prefers-color-scheme:dark){.ground{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}.faint{fill:#9198a1}.grid{stroke:#2a313c}"
    ".axis{stroke:#656c76}.line0{stroke:#4493f8}.line1{stroke:#f0883e}.line2{stroke:#3fb950}.line3{stroke:#a371f7}}"
)
_FONT = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
_WIDTH, _TOP, _HEIGHT, _LEFT, _RIGHT = 720, 84, 220, 64, 696
_POINTS = 400
"""Points of one line, at most: runs of steps are drawn as their mean."""


def losses(history: Mapping[str, Sequence[float]], *, title: str) -> str:
    """A line for each loss over the steps.

    Args:
        history: name -> value of every step, at least two; at most four names.
        title: over the picture.

    Raises:
        InputError: fewer than two steps, lines of different lengths, or a number that is not finite.

    >>> losses({"loss": [2.0, 1.0], "round trip": [0.5, 0.25]}, title="x & y")[:5]
    '<svg '
    """
    count = len(next(iter(history.values()), ()))
    if count < 2 or len(history) > 4 or any(len(values) != count for values in history.values()):
        raise InputError("a picture of losses needs one to four lines of the same number of steps, at least two")
    if not all(math.isfinite(value) for values in history.values() for value in values):
        raise InputError("a loss that is not a finite number cannot be drawn")
    thinned = {name: _thin(values) for name, values in history.items()}
    top = max(1e-12, *(value for points in thinned.values() for _, value in points))
    step = _tick(top)
    ceiling = step * math.ceil(top / step)
    bottom = _TOP + _HEIGHT

    def place(at: float, value: float) -> str:
        return f"{_LEFT + (at - 1) / (count - 1) * (_RIGHT - _LEFT):.1f} {bottom - max(0.0, value) / ceiling * _HEIGHT:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom + 52}" viewBox="0 0 {_WIDTH} {bottom + 52}" role="img" '
        f'font-family="{_FONT}" font-size="13"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{bottom + 51}" rx="6"/>'
        f'<text class="text" x="24" y="34" font-size="16" font-weight="600">{escape(title)}</text>'
    ]
    for number in range(round(ceiling / step) + 1):
        y = bottom - number * step / ceiling * _HEIGHT
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_RIGHT}" y2="{y:.1f}"/>')
        parts.append(f'<text class="faint" x="{_LEFT - 8}" y="{y + 4.5:.1f}" text-anchor="end">{number * step:g}</text>')
    for number, (name, points) in enumerate(thinned.items()):
        label, x = f"{name.replace('_', ' ')} {points[-1][1]:.3g}", 24 + 170 * number
        parts.append(f'<path class="line{number}" fill="none" stroke-width="1.8" d="M{"L".join(place(*point) for point in points)}"/>')
        parts.append(f'<path class="line{number}" stroke-width="3" d="M{x} 58h16"/>')
        parts.append(f'<text class="text" x="{x + 22}" y="62">{escape(label)}</text>')
    parts.append(f'<path class="axis" fill="none" d="M{_LEFT} {_TOP}V{bottom}H{_RIGHT}"/>')
    parts.append(f'<text class="faint" x="{_LEFT}" y="{bottom + 18}" text-anchor="middle">1</text>')
    parts.append(f'<text class="faint" x="{_RIGHT}" y="{bottom + 18}" text-anchor="end">{count:,}</text>')
    parts.append(
        f'<text class="faint" x="{(_LEFT + _RIGHT) / 2:.0f}" y="{bottom + 38}" text-anchor="middle">optimiser steps</text></svg>\n'
    )
    return "".join(parts)


def _thin(values: Sequence[float]) -> list[tuple[float, float]]:
    """(step, mean) of runs of steps."""
    size = -(-len(values) // _POINTS)
    runs = [(start, values[start : start + size]) for start in range(0, len(values), size)]
    points = [(start + (len(run) + 1) / 2, math.fsum(run) / len(run)) for start, run in runs]
    return [(1.0, points[0][1]), *points[1:-1], (float(len(values)), points[-1][1])] if len(points) > 1 else points


def _tick(top: float) -> float:
    """A round number of which three to seven make `top`."""
    power = 10.0 ** math.floor(math.log10(top))
    return next(part * power for part in (0.2, 0.5, 1.0, 2.0) if top / (part * power) <= 7)
