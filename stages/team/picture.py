"""A team search as an SVG, drawn from its report alone: who complements whom, how distributions differ, and the growth beside its control.

The same bytes for the same report, without a plotting library; names are escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

_STYLE = (
    ".ground{fill:#ffffff;stroke:#d0d7de}.text{fill:#1f2328}.faint{fill:#59636e}.axis{stroke:#818b98}"
    ".cell{fill:#0969da;stroke:#d0d7de}.own{fill:#0969da}.other{fill:#818b98}"
    "@media (prefers-color-scheme:dark){.ground{fill:#0d1117;stroke:#3d444d}.text{fill:#f0f6fc}.faint{fill:#9198a1}.axis{stroke:#656c76}"
    ".cell{fill:#4493f8;stroke:#3d444d}.own{fill:#4493f8}.other{fill:#9198a1}}"
)
_FONT = "-apple-system,'Segoe UI','Noto Sans',Helvetica,Arial,sans-serif"
_WIDTH, _MARGIN, _LABEL, _SIDE, _ROW = 720, 24, 96, 200, 30
_NAME = 12
"""Letters of a name that are shown; the whole stands in its tooltip."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One matrix.

    Attributes:
        title: what a cell is. values: names x names; None where there is no number.
        places: decimals of a number.
    """

    title: str
    values: Sequence[Sequence[float | None]]
    places: int


def draw(report: Mapping[str, Any]) -> str:
    """The picture of a report of `team-search`."""
    names = sorted(report["candidates"])
    drawn = [_complementary(report, names)]
    if "divergence" in report:
        drawn.append(Grid("D over the choices, nats a question", _square(report["divergence"]["matrix"], names), 2))
    if "byteDivergence" in report:
        drawn.append(Grid("D over the next byte, nats", _square(report["byteDivergence"]["matrix"], names), 2))
    body: list[str] = []
    top, size = 56, _SIDE / len(names)
    for number, grid in enumerate(drawn):
        left = _MARGIN + _LABEL + (number % 2) * (_WIDTH / 2 - 8)
        body += _grid(grid, names, left, top + (number // 2) * (_SIDE + 64) + 26, size)
    top += -(-len(drawn) // 2) * (_SIDE + 64)
    bars, bottom = _growth(report, top + 12)
    body += bars
    title = f"Team search: {', '.join(report['selectedTeam'])}"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom}" viewBox="0 0 {_WIDTH} {bottom}" role="img" '
        f'font-family="{_FONT}" font-size="12"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{bottom - 1}" rx="6"/>'
        f'<text class="text" x="{_MARGIN}" y="34" font-size="16" font-weight="600">{escape(_short(title, 72))}</text>'
    )
    return "".join([head, *body, "</svg>\n"])


def _complementary(report: Mapping[str, Any], names: Sequence[str]) -> Grid:
    """How many questions exactly one of two gets right; on the diagonal how many the model gets right."""
    counts = {frozenset((item["a"], item["b"])): item["complementary"] for item in report["pairs"]}
    values = [[counts[frozenset((a, b))] if a != b else report["candidates"][a]["select"] for b in names] for a in names]
    return Grid("right by exactly one (diagonal: right)", values, 0)


def _square(matrix: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> list[list[float | None]]:
    """A matrix of decimal text; what is infinite has no number."""
    found = [[float(matrix[a][b]) for b in names] for a in names]
    return [[value if abs(value) < float("inf") else None for value in row] for row in found]


def _grid(grid: Grid, names: Sequence[str], left: float, top: float, size: float) -> list[str]:
    largest = max((value for row in grid.values for value in row if value is not None), default=0.0) or 1.0
    parts = [f'<text class="text" x="{left:.1f}" y="{top - 10:.1f}" font-weight="600">{escape(grid.title)}</text>']
    for down, name in enumerate(names):
        y = top + down * size
        parts.append(
            f'<text class="faint" x="{left - 8:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="end">{escape(_short(name, _NAME))}'
            f"<title>{escape(name)}</title></text>"
        )
        for across, value in enumerate(grid.values[down]):
            x, part = left + across * size, 0.0 if value is None else max(0.0, value) / largest
            shown = "∞" if value is None else f"{value:.{grid.places}f}"
            words = f"{name}, {names[across]}: {shown}"
            parts.append(
                f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{size:.1f}" height="{size:.1f}" fill-opacity="{0.6 * part:.3f}">'
                f"<title>{escape(words)}</title></rect>"
            )
            if size >= 28:
                middle = f'x="{x + size / 2:.1f}" y="{y + size / 2 + 4:.1f}" text-anchor="middle"'
                parts.append(f'<text class="text" {middle} pointer-events="none">{shown}</text>')
    for across, name in enumerate(names):
        letters = max(1, int(size / 7))
        x, y = left + (across + 0.5) * size, top + len(names) * size + 16
        parts.append(f'<text class="faint" x="{x:.1f}" y="{y:.1f}" text-anchor="middle">{escape(_short(name, letters))}</text>')
    return parts


def _growth(report: Mapping[str, Any], top: float) -> tuple[list[str], int]:
    """A row for each step: what it gained, and under it what one more sample of a member would have."""
    steps = [*report["growth"], *([report["refused"]] if report["refused"] is not None else [])]
    left, right = _MARGIN + _LABEL, _WIDTH - _MARGIN - 190
    n = report["questions"]["select"]
    said = f"gain of each member, part of {n:,} questions; grey: of one more sample of a member"
    parts = [f'<text class="text" x="{_MARGIN}" y="{top:.1f}" font-weight="600">{said}</text>']
    y = top + 14
    for number, step in enumerate(steps):
        gain, control = float(step["gain"]), None if step["control"] is None else float(step["control"])
        refused = number >= len(report["growth"])
        words = f"{gain:.1%}" + ("" if control is None else f", control {control:.1%}") + (" (refused)" if refused else "")
        parts.append(f'<text class="faint" x="{left - 8}" y="{y + 14:.1f}" text-anchor="end">{escape(_short(step["name"], _NAME))}</text>')
        shade = ' fill-opacity="0.4"' if refused else ""
        parts.append(f'<rect class="own" x="{left}" y="{y + 3:.1f}" width="{gain * (right - left):.1f}" height="11"{shade}/>')
        if control is not None:
            parts.append(f'<rect class="other" x="{left}" y="{y + 15:.1f}" width="{control * (right - left):.1f}" height="6"/>')
        parts.append(f'<text class="text" x="{right + 12}" y="{y + 14:.1f}">{words}</text>')
        y += _ROW
    parts.append(f'<path class="axis" fill="none" d="M{left} {top + 14:.1f}V{y:.1f}"/>')
    told = report["confirmation"]
    held = f"held out, {report['questions']['heldOut']:,} questions: {float(told['anyone']):.1%} by anyone, "
    held += f"{float(told['alone']):.1%} by the best alone"
    if told["control"] is not None:
        held += f", {float(told['control']):.1%} by its further samples"
    parts.append(f'<text class="faint" x="{_MARGIN}" y="{y + 20:.1f}">{held}</text>')
    return parts, round(y + 40)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: max(1, most - 1)] + "…"
