"""How a report's figures are drawn: by matplotlib into SVG that takes its colours and its font from the page.

Nothing of the user's (names, errors) is drawn: matplotlib would read `$` as mathematics and warn about glyphs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
WIDTH_IN, HEIGHT_IN = 5.2, 2.7

# Colours that matplotlib draws with, and the page's own that stand for them: one figure serves light, dark and paper.
INK, MUTED, GRID = "#010101", "#020202", "#030303"
READ, WRITTEN, RUNNING, WAITING, OTHER = SERIES = ("#0a0a01", "#0a0a02", "#0a0a03", "#0a0a04", "#0a0a05")
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line"} | {c: f"--series-{n}" for n, c in enumerate(SERIES, 1)}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9.0,
    "font.family": "sans-serif",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.visible": False,
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.parse_math": False,
}


class PlotsUnavailable(Exception):
    """matplotlib is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "a report's figures are drawn by matplotlib, which is not installed: pip install 'docmill[report]' "
            "(--json prints the numbers without it)"
        )


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure: `svg` for a page that defines the colours; `description` says what there is to see."""

    name: str
    title: str
    description: str
    svg: str


def require_matplotlib() -> None:
    """Raises PlotsUnavailable."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise PlotsUnavailable from None


class Drawing:
    """One figure while it is drawn. `name` must be unique on the page: the ids in it begin so."""

    def __init__(self, name: str, title: str, description: str, height_in: float = HEIGHT_IN) -> None:
        self._name, self._title, self._description, self._height_in = name, title, description, height_in
        self._lines: list[Any] = []

    def __enter__(self) -> Axes:
        from matplotlib import rc_context
        from matplotlib.figure import Figure as Canvas

        self._context = rc_context(_STYLE | {"svg.hashsalt": self._name})
        self._context.__enter__()
        self._canvas = Canvas(figsize=(WIDTH_IN, self._height_in), layout="constrained")
        return self._canvas.add_subplot()

    def __exit__(self, *error: object) -> None:
        out = io.BytesIO()
        try:
            if error[0] is None:
                nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
                self._canvas.savefig(out, format="svg", transparent=True, metadata=nothing)
        finally:
            self._context.__exit__(None, None, None)
        self._svg = out.getvalue()

    def figure(self) -> Figure:
        """What was drawn, after the block."""
        svg = _for_page(self._svg, self._name, self._title, self._description)
        return Figure(self._name, self._title, self._description, svg)


def _for_page(svg: bytes, name: str, title: str, description: str) -> str:
    """The SVG as a part of an HTML page: sized by it, in its colours, with ids of its own, described."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib's
    for element in list(root.iter()):
        for child in list(element):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                element.remove(child)
        for key, value in list(element.attrib.items()):
            element.set(key, _own_reference(key, value, name))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for place, (tag, text) in enumerate((("title", title), ("desc", description))):
        part = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{name}-{'title' if not place else 'description'}"})
        part.text = text
        root.insert(place, part)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    drawn = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var({variable})")
    return re.sub(r">\s+<", "><", drawn)


def _own_reference(key: str, value: str, name: str) -> str:
    if key == "id":
        return f"{name}-{value}"
    if key == _HREF and value.startswith("#"):
        return f"#{name}-{value[1:]}"
    if key == "style":
        value = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", value)
    return _REFERENCE.sub(rf"url(#{name}-\1)", value)


_STEPS_S = (
    *(step * size for size in (0.001, 0.01, 0.1, 1.0) for step in (1, 2, 5)), 10.0, 20.0,
    *(minutes * 60.0 for minutes in (1, 2, 5, 10, 20)), *(hours * 3600.0 for hours in (1, 2, 5, 10, 24, 48, 120, 240)),
)  # fmt: skip


def ticks_between(least_s: float, most_s: float, at_most: int = 6) -> Iterator[float]:
    """Round durations between two, in seconds, at most so many."""
    inside = [step for step in _STEPS_S if least_s <= step <= most_s]
    every = -(-len(inside) // at_most) if inside else 1
    yield from inside[::every]


def tick_label(value_s: float) -> str:
    """`5 ms`, `0.2 s`, `20 s`, `5 min`, `2 h`, `2 d`."""
    for size, unit in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if value_s >= size and not (unit == "d" and value_s < 2 * size):
            return f"{value_s / size:g} {unit}"
    return f"{value_s:g} s" if value_s >= 0.1 else f"{value_s * 1000:g} ms"
