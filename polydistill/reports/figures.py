"""Plots of a comparison as SVG to put into a page: no fixed colours, no fonts, ids of their own, a text for each.

Matplotlib draws with colours that stand for the page's variables, so that light and dark pages share one drawing.
"""

from __future__ import annotations

import io
import logging
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from polydistill.errors import PolydistillError
from polydistill.reports.rows import Interval, Row
from polydistill.reports.runs import Plane
from polydistill.reports.tables import estimate, label, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SERIES = 8  # colours in the page's style sheet, --series-0 to --series-7
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # seven, so that colour and marker repeat together only after 56
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _LINE: "--line"}
_VARIABLES |= {f"#0404{i:02x}": f"--series-{i}" for i in range(SERIES)}
_WIDTH = 4.6  # inches, so that the text can be read where the page is as narrow as a phone
_BAR, _GAP, _FRAME = 0.19, 0.12, 0.62  # inches of a bar, between languages, and of what is around the bars
_MOST_TICKS = 6
_ROOM = 1.12  # of the axis beyond the longest bar, for its value
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "polydistill",
    "text.parse_math": False,
    "font.size": 9.0,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
}


@dataclass(frozen=True)
class Point:
    """A model in the plot of size against quality.

    Args:
        model: Its name.
        series: Which colour and marker it has.
        parameters: Its size.
        value: Its score from 0 to 1.
        interval: 95% interval of the score.
    """

    model: str
    series: int
    parameters: int
    value: float
    interval: Interval | None


def check_library() -> None:
    """Refuses to go on without the plotting library.

    Raises:
        PolydistillError: Matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise PolydistillError(
            "The page's plots need matplotlib, which is not installed.",
            "Install it with: pip install 'polydistill[report]'.",
        )


def size_against_quality(points: Sequence[Point], measure: str, title: str, name: str, *, named: bool = False) -> str:
    """Parameters (a logarithmic scale) against a score with its interval.

    Args:
        points: One for each model; at least one.
        measure: What the score is, for the axis.
        title: What the figure shows, for those who cannot see it.
        name: Prefix of the ids in the SVG.
        named: Whether names stand beside the points, for a picture without a legend around it.
    """
    low, high = (limit(p.parameters for p in points) for limit in (min, max))
    with _drawing(2.9) as (figure, axes):
        for point in points:
            colour = _colour(point.series)
            if named:
                left = point.parameters > (low * high) ** 0.5  # in the right half, so that it has room
                axes.annotate(
                    point.model,
                    (point.parameters, 100 * point.value),
                    (-8 if left else 8, 4),
                    color=_INK,
                    textcoords="offset points",
                    ha="right" if left else "left",
                )
            axes.errorbar(
                [point.parameters],
                [100 * point.value],
                yerr=_reach(point.value, point.interval),
                fmt=marker(point.series),
                color=colour,
                markersize=8,
                elinewidth=1.6,
                capsize=4,
            )
        axes.set_xscale("log")
        axes.set_xlim(low / 1.6, high * 1.6)
        _count_ticks(axes, low / 1.6, high * 1.6)
        axes.margins(y=0.15)
        axes.set_xlabel("parameters")
        axes.set_ylabel(measure)
        lines = [f"{p.model}: {p.parameters:,} parameters, {estimate(p.value, p.interval)}" for p in points]
        return _finish(figure, name, title, lines)


def bars(rows: Sequence[Row], series: Mapping[str, int], measure: str, title: str, name: str) -> str:
    """Horizontal bars with intervals, a group for each language.

    Args:
        rows: One for each language and model.
        series: Model -> which colour it has.
        measure: What the score is, for the axis.
        title: What the figure shows, for those who cannot see it.
        name: Prefix of the ids in the SVG.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(label(row), []).append(row)
    with _drawing(_FRAME + len(rows) * _BAR + len(groups) * _GAP) as (figure, axes):
        middles, top = [], 0.0
        for group in groups.values():
            for place, row in enumerate(group):
                _bar(axes, row, top + (place + 0.5) * _BAR, _colour(series[row.model]))
            middles.append(top + len(group) * _BAR / 2)
            top += len(group) * _BAR + _GAP
        ends = [100 * limit for row in rows for limit in (row.value, *(row.interval or ()))]
        axes.set_xlim(min(0.0, *ends), max(1.0, *ends) * _ROOM)
        axes.set_ylim(top, -_GAP)
        axes.set_yticks(middles, list(groups))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(measure)
        return _finish(figure, name, title, [f"{label(r)}, {r.model}: {estimate(r.value, r.interval)}" for r in rows])


def _bar(axes: Axes, row: Row, height: float, colour: str) -> None:
    """A bar with its interval and its value."""
    value = 100 * row.value
    axes.barh(height, value, height=0.86 * _BAR, color=colour)
    if reach := _reach(row.value, row.interval):
        axes.errorbar([value], [height], xerr=reach, fmt="none", color=_INK, elinewidth=1.1, capsize=2)
    end = 100 * max(0.0, row.value, *(row.interval or ()))
    axes.annotate(percent(row.value), (end, height), (4, 0), textcoords="offset points", va="center", fontsize=8)


def prototypes(plane: Plane, title: str, name: str) -> str:
    """Tokens of two languages and their prototypes: a colour a class, a marker a language, prototypes large.

    Args:
        plane: What to show.
        title: What the figure shows, for those who cannot see it.
        name: Prefix of the ids in the SVG.
    """
    from matplotlib.lines import Line2D

    shapes = ("o", "^")
    with _drawing(4.2) as (figure, axes):
        for spots, size, edge, alpha in ((plane.tokens, 14, "none", 0.55), (plane.prototypes, 130, _INK, 1.0)):
            for kind in range(len(plane.classes)):
                for number, shape in enumerate(shapes):
                    here = [s for s in spots if (s.kind, s.language) == (kind, number)]
                    axes.scatter(
                        [s.x for s in here],
                        [s.y for s in here],
                        s=size,
                        marker=shape,
                        color=_colour(kind),
                        edgecolors=edge,
                        linewidths=1.3,
                        alpha=alpha,
                    )
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"plane with {percent(plane.explained)}% of the variance")
        keys = [Line2D([], [], marker="o", ls="", color=_colour(k), label=c) for k, c in enumerate(plane.classes)]
        keys += [
            Line2D([], [], marker=s, ls="", color=_INK, markerfacecolor="none", label=code)
            for s, code in zip(shapes, plane.languages, strict=True)
        ]
        figure.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)
        lines = [
            f"{plane.classes[s.kind]}, {plane.languages[s.language]}: prototype at {s.x:.2f}, {s.y:.2f}"
            for s in plane.prototypes
        ]
        return _finish(figure, name, title, lines)


def marker(series: int) -> str:
    """The marker of a series, as matplotlib names it."""
    return MARKERS[series % len(MARKERS)]


def key(series: int, name: str) -> str:
    """A small drawing of a series' marker, for the legend; it has no text, since the name stands beside it."""
    with _drawing(0.16, 0.16) as (figure, axes):
        axes.set_axis_off()
        axes.plot([0], [0], marker(series), color=_colour(series), markersize=8)
        return _finish(figure, name, "", [])


def _colour(series: int) -> str:
    return f"#0404{series % SERIES:02x}"


def _reach(value: float, interval: Interval | None) -> list[list[float]] | None:
    """How far an interval reaches below and above its estimate, times 100, as matplotlib wants it."""
    if interval is None:
        return None
    return [[max(100 * (value - interval[0]), 0)], [max(100 * (interval[1] - value), 0)]]


def _count_ticks(axes: Axes, low: float, high: float) -> None:
    """Round numbers of parameters on a logarithmic axis: 1, 2 and 5 times powers of ten, fewer where it is long."""
    from matplotlib.ticker import NullLocator

    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10**power for power in range(13) for step in steps if low <= step * 10**power <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    axes.set_xticks(ticks, [_short_count(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _short_count(count: int) -> str:
    """5_000_000 -> `5M`."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count // size:,}{unit}"
    return str(count)


@contextmanager
def _drawing(height: float, width: float = _WIDTH) -> Iterator[tuple[Figure, Axes]]:
    """A figure in the page's style, whatever the user's own settings of matplotlib are; sizes in inches."""
    check_library()
    import matplotlib
    from matplotlib.figure import Figure

    quiet = logging.getLogger("matplotlib.font_manager")
    before = quiet.level
    with matplotlib.rc_context(), warnings.catch_warnings():
        # The reader's fonts show the text, so what matplotlib's own font lacks does not matter.
        warnings.filterwarnings("ignore", message=r".*[Gg]lyph")
        quiet.setLevel(logging.ERROR)
        try:
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            figure = Figure(figsize=(width, height), layout="constrained" if width == _WIDTH else None)
            yield figure, figure.subplots() if width == _WIDTH else figure.add_axes((0.0, 0.0, 1.0, 1.0))
        finally:
            quiet.setLevel(before)


def _finish(figure: Any, name: str, title: str, lines: Sequence[str]) -> str:
    """The figure as an SVG element with a title and a description, or hidden from readers' machines without one."""
    raw = io.BytesIO()
    figure.savefig(raw, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(raw.getvalue())
    for child in [c for c in root if c.tag == f"{_SVG}metadata"]:
        root.remove(child)
    for parent in root.iter(f"{_SVG}defs"):
        for style in parent.findall(f"{_SVG}style"):  # it would apply to the whole page; the page has it for its SVGs
            parent.remove(style)
    for element in root.iter():
        _own(element, name)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    if title:
        root.set("role", "img")
        root.set("aria-labelledby", f"{name}-title {name}-text")
        told, named = (
            ET.Element(f"{_SVG}{tag}", {"id": f"{name}-{part}"}) for tag, part in (("desc", "text"), ("title", "title"))
        )
        named.text, told.text = title, "; ".join(lines)
        root[:0] = [named, told]
    else:
        root.set("aria-hidden", "true")
    ET.register_namespace("", _SVG[1:-1])
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ET.tostring(root, encoding="unicode")


def _own(element: ET.Element, name: str) -> None:
    """Gives an element ids of its own and the page's colours."""
    for attribute, value in element.attrib.items():
        if attribute == "id":
            value = f"{name}-{value}"
        elif attribute == _LINK:
            value = f"#{name}-{value[1:]}"
        value = value.replace("url(#", f"url(#{name}-")
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, f"var({variable})")
        element.set(attribute, value)
