"""Plots as SVG: small, without a script, readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10

PANEL_WIDTH, PANEL_HEIGHT = 330, 200
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 40
LEGEND = 30
# Colours that differ in lightness too; dashes and marks for those who see no colours.
LIGHT = ("#0b5cad", "#5b9bd5", "#b3431e", "#8a6d00", "#3f7d3a")
DARK = ("#6cb2ff", "#2f74b8", "#ff9466", "#e3c04d", "#8fd18a")
DASHES = ("", "6 3", "", "6 3", "2 3")
MARKS = "●■▲▼◆"

Line = Sequence[float | None]


def style() -> str:
    """Return the colours, by what the reader's system prefers."""

    def colours(text: str, grid: str, page: str, lines: Sequence[str]) -> str:
        rules = [
            f"text{{fill:{text}}}.page{{fill:{page}}}.grid{{stroke:{grid}}}",
            *(f".c{n}{{stroke:{c}}}.f{n}{{fill:{c}}}" for n, c in enumerate(lines)),
        ]
        return "".join(rules)

    light = colours("#1f2328", "#d0d7de", "#ffffff", LIGHT)
    dark = colours("#e6edf3", "#30363d", "#0d1117", DARK)
    font = "text{font:12px system-ui,sans-serif}.title{font-weight:600}"
    return (
        f"<style>{font}polyline{{fill:none;stroke-width:2}}{light}"
        f"@media (prefers-color-scheme:dark){{{dark}}}</style>"
    )


def line_plots(
    title: str,
    panels: Mapping[str, Mapping[str, Line]],
    ticks: Sequence[str],
    across: str,
    *,
    is_logarithmic: bool = False,
) -> str:
    """Return plots, two beside each other, each with a line for each name.

    All panels have the same names. What is missing in a line is None.
    """
    names = list(next(iter(panels.values())))
    rows = ceil(len(panels) / 2)
    columns = min(len(panels), 2)
    width, height = columns * PANEL_WIDTH, rows * PANEL_HEIGHT + LEGEND
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
        style(),
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for number, (name, lines) in enumerate(panels.items()):
        x, y = number % 2 * PANEL_WIDTH, number // 2 * PANEL_HEIGHT
        parts.append(f'<g transform="translate({x},{y})">')
        parts += panel(name, lines, ticks, across, is_logarithmic=is_logarithmic)
        parts.append("</g>")
    parts.append(legend(names, width, height))
    return "\n".join([*parts, "</svg>", ""])


def panel(
    name: str,
    lines: Mapping[str, Line],
    ticks: Sequence[str],
    across: str,
    *,
    is_logarithmic: bool,
) -> list[str]:
    """Return one plot."""
    known = [val for line in lines.values() for val in line if val]
    marks = logarithmic_marks(known) if is_logarithmic else linear_marks(max(known))
    low, high = marks[0], marks[-1]
    wide, tall = PANEL_WIDTH - LEFT - RIGHT, PANEL_HEIGHT - TOP - BOTTOM

    def x_of(number: int) -> float:
        return LEFT + wide * (number + 0.5) / len(ticks)

    def y_of(value: float) -> float:
        if is_logarithmic:
            part = (log10(value) - log10(low)) / (log10(high) - log10(low))
        else:
            part = (value - low) / (high - low)
        return TOP + tall * (1 - part)

    parts = [f'<text class="title" x="{LEFT}" y="20">{escape(name)}</text>']
    for mark in marks:
        y = y_of(mark)
        parts += [
            f'<path class="grid" d="M{LEFT} {y:.1f}h{wide}"/>',
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:,g}</text>',
        ]
    middle, base = LEFT + wide / 2, PANEL_HEIGHT - BOTTOM
    for number, tick in enumerate(ticks):
        parts.append(
            f'<text x="{x_of(number):.1f}" y="{base + 16}" '
            f'text-anchor="middle">{escape(tick)}</text>'
        )
    parts.append(
        f'<text x="{middle:.1f}" y="{base + 32}" text-anchor="middle">'
        f"{escape(across)}</text>"
    )
    for number, line in enumerate(lines.values()):
        points = [(x_of(at), y_of(val)) for at, val in enumerate(line) if val]
        joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dashes = f' stroke-dasharray="{DASHES[number]}"' if DASHES[number] else ""
        parts.append(f'<polyline class="c{number}"{dashes} points="{joined}"/>')
        parts += [
            f'<text class="f{number}" x="{x:.1f}" y="{y + 4:.1f}" '
            f'text-anchor="middle">{MARKS[number]}</text>'
            for x, y in points
        ]
    return parts


def legend(names: Sequence[str], width: int, height: int) -> str:
    """Return what the marks mean."""
    parts = []
    for number, name in enumerate(names):
        x = 12 + number * (width - 12) / len(names)
        y = height - 12
        parts.append(
            f'<text class="f{number}" x="{x:.0f}" y="{y}">{MARKS[number]}</text>'
        )
        parts.append(f'<text x="{x + 16:.0f}" y="{y}">{escape(name)}</text>')
    return "".join(parts)


def linear_marks(highest: float) -> list[float]:
    """Return round numbers from zero, the last of which nothing exceeds."""
    rough = highest / 4
    size = 10 ** floor(log10(rough))
    step = next(n * size for n in (1, 2, 2.5, 5, 10) if n * size >= rough)
    return [step * n for n in range(ceil(highest / step) + 1)]


def logarithmic_marks(values: Sequence[float]) -> list[float]:
    """Return powers of ten, between which everything lies."""
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    return [10.0**n for n in range(low, max(high, low + 1) + 1)]
