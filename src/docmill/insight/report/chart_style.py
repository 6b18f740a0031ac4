"""How figures are drawn: matplotlib's SVG, which takes its colours and its font from the page around it.

Names and messages of the user are never drawn: matplotlib would read `$` as mathematics and warn about glyphs.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from docmill.errors import DocmillError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_IN, HEIGHT_IN = 5.2, 2.7

# Matplotlib draws with these placeholders, and the page replaces them: one figure serves light, dark and paper.
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


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawn figure: `svg` for a page that defines the colours; `description` for readers who cannot see it."""

    title: str
    description: str
    svg: str


def require_matplotlib() -> None:
    """Raises DocmillError if matplotlib is not installed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise DocmillError(
            "the figures need matplotlib, which is not installed: run pip install 'docmill[report]', or use --json, "
            "which needs no figures"
        ) from None


def draw(
    name: str, title: str, description: str, paint: Callable[[Axes], None], height_in: float = HEIGHT_IN
) -> Figure:
    """Draw what `paint` adds to empty axes. `name` must be unique on the page: it prefixes the ids in the SVG."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure as Canvas

    out = io.StringIO()
    with rc_context(_STYLE | {"svg.hashsalt": name}):
        canvas = Canvas(figsize=(WIDTH_IN, height_in), layout="constrained")
        paint(canvas.add_subplot())
        no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        canvas.savefig(out, format="svg", transparent=True, metadata=no_metadata)
    return Figure(title, description, _for_page(out.getvalue(), name, title, description))


def _for_page(svg: str, name: str, title: str, description: str) -> str:
    """The SVG as part of an HTML page: sized by the page, in its colours and font, with ids of its own, described."""
    start, body = re.findall(r"(<svg[^>]*>)(.*)", svg, re.DOTALL)[0]
    body = re.sub(r"<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{name}-", body)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    for colour, variable in _VARIABLES.items():
        body = body.replace(colour, f"var({variable})")
    view_box = re.findall(r'viewBox="[^"]*"', start)[0]
    return (
        f'<svg {view_box} role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
        + re.sub(r">\s+<", "><", body)
    )
