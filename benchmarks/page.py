"""Writes the tables and plots of docs/costs.md from the figures that are stored.

Run it after a measurement: `.venv/bin/python -m benchmarks.page`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from benchmarks import figures
from benchmarks.compare import CLIENTS, compared
from benchmarks.figures import NotMeasuredError, Ratio
from benchmarks.instructions import GUARDS, NONE
from benchmarks.plots import line_plots
from benchmarks.serving import OURS, PEERS
from benchmarks.workloads import WORKLOADS
from tests.attacks.test_round_trips import ROUND_TRIPS
from tests.template import ROOT

PAGE = ROOT / "docs" / "costs.md"
PLOTS = ROOT / "docs" / "costs"
CALLED = {
    "read": "read by id",
    "list": "list of 50",
    "create": "create",
    "order": "order of 5 lines",
}
NAMES = {
    "sqlalchemy": "SQLAlchemy",
    "sqlmodel": "SQLModel",
    "a": "(a)",
    "b": "(b)",
    "c": "(c)",
}
NOT_MEASURED = "none"


def table(head: list[str], rows: list[list[str]], numbers: int = 0) -> str:
    """Return a table; the last columns, so many, are numbers."""
    line = ["---"] * (len(head) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, line, *rows])


def filled(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """Return a page's text with each table, between its marks, as it is now."""

    def current(match: re.Match[str]) -> str:
        try:
            made = tables[match[2]]()
        except NotMeasuredError:
            made = "Not measured yet."
        return f"{match[1]}\n\n{made}\n\n{match[3]}"

    marks = r"(<!-- begin: ([\w-]+) -->)\n.*?(<!-- end -->)"
    return re.sub(marks, current, text, flags=re.S)


def cells(io: str) -> list[tuple[str, int, dict[str, Any]]]:
    """Return what was measured of each workload with each number of clients.

    Raises `NotMeasuredError` if that is nothing.
    """
    stored = figures.read(f"compare-{io}")
    if not stored:
        raise NotMeasuredError(io)
    return [
        (workload, clients, stored[workload][str(clients)])
        for workload in WORKLOADS
        for clients in CLIENTS
        if str(clients) in stored.get(workload, {})
    ]


def ratios(io: str) -> str:
    """Return the table of throughput beside the peers'."""
    rows = [
        [
            CALLED[workload],
            str(clients),
            *(compared(measured, "sqlalchemy", peer) for peer in PEERS[io]),
            compared(measured, "sqlmodel", "a"),
        ]
        for workload, clients, measured in cells(io)
    ]
    heads = [f"SQLAlchemy to {NAMES[peer]}" for peer in PEERS[io]]
    head = ["request", "clients", *heads, "SQLModel to (a)"]
    return table(head, rows)


def shown(value: float | None, digits: int = 0) -> str:
    """Return a figure, if there is one."""
    return NOT_MEASURED if value is None else f"{value:,.{digits}f}"


def everything(io: str) -> str:
    """Return the table of all absolute figures."""
    rows = []
    for workload, clients, measured in cells(io):
        for name in (*OURS[io], *PEERS[io]):
            found = measured[name]
            low, high = figures.confidence(found["rate"])
            rows.append(
                [
                    CALLED[workload],
                    str(clients),
                    NAMES[name],
                    f"{median(found['rate']):,.0f} ({low:,.0f} to {high:,.0f})",
                    shown(found["p50"], 1),
                    shown(found["p99"], 1),
                    shown(found["service"]),
                    shown(found["database"]),
                    f"{found['failed']:,}",
                ]
            )
    head = ["request", "clients", "service", "a second", "p50 ms", "p99 ms"]
    head += ["service µs", "PostgreSQL µs", "failed"]
    return table(head, rows, 6)


def instruction_table() -> str:
    """Return the table of instructions."""
    stored = figures.read("instructions")
    rows = []
    for io in OURS:
        for name in (*OURS[io], *PEERS[io]):
            counted = stored.get(io, {}).get(name)
            if counted:
                each = [f"{counted[workload]:,}" for workload in WORKLOADS]
                rows.append([f"{io}, {NAMES[name]}", *each])
    return table(["service", *CALLED.values()], rows, len(CALLED))


def guard_table() -> str:
    """Return the table of what each guard costs."""
    stored, base = figures.read("guards"), figures.part("guards", NONE)
    rows = [["the whole service", *(f"{base[each]:,}" for each in base)]]
    for guard, (what, _) in GUARDS.items():
        if without := stored.get(guard):
            rows.append([what, *(share(base[each], without[each]) for each in base)])
    return table(["what", *(CALLED[each] for each in base)], rows, len(base))


def share(whole: int, without: int) -> str:
    """Return how much of the whole is gone without it."""
    return f"{whole - without:+,} ({(whole - without) / whole:+.1%})"


def growth(name: str) -> Any:
    """Return figures of grow.py."""
    return figures.part("growth", name)


def by_size(name: str, what: str, *more: str) -> str:
    """Return the table of a service in several sizes."""
    stored = growth(name)
    sizes = list(next(iter(stored.values())))
    rows = []
    for workload, measured in stored.items():
        first = measured[sizes[0]]["rate"]
        for size in sizes:
            found = measured[size]
            compared = "" if size == sizes[0] else str(Ratio.of(found["rate"], first))
            rows.append(
                [
                    CALLED[workload],
                    size,
                    shown(median(found["rate"])),
                    compared,
                    *(shown(found[each], 1) for each in ("p50", "p99")),
                ]
            )
    head = ["request", what, "a second", f"to {sizes[0]}", "p50 ms", "p99 ms", *more]
    return table(head, rows)


def round_trip_table() -> str:
    """Return the table of round trips, as the test has it."""
    rows = [[name, str(most)] for name, (_, most) in ROUND_TRIPS.items()]
    return table(["request", "round trips"], rows, 1)


def processes_table() -> str:
    """Return the table of processes."""
    resident = growth("processes_mib")
    said = ", ".join(f"{each:.0f}" for each in resident.values())
    return f"{by_size('processes', 'processes')}\n\nMemory of all, in MiB: {said}."


def depth_table() -> str:
    """Return the table of pages at depth."""
    rows = [
        [f"{int(depth):,}", *(f"{found[each]:,.1f}" for each in found)]
        for depth, found in growth("depth").items()
    ]
    head = ["rows before it", "the page over HTTP, ms"]
    head += ["SQL by OFFSET, ms", "SQL by key, ms"]
    return table(head, rows, 4)


def export_table() -> str:
    """Return the table of the export."""
    rows = []
    for io, found in growth("export").items():
        rows.append(
            [
                io,
                f"{found['rows']:,}",
                f"{found['seconds']:.1f}",
                f"{found['rows'] / found['seconds']:,.0f}",
                f"{found['service_seconds'] / found['rows'] * 1e6:.1f}",
                f"{found['mib_before']:.1f}",
                f"{found['mib_at_most']:.1f}",
            ]
        )
    head = ["io", "rows", "seconds", "rows a second", "service µs a row"]
    head += ["MiB before", "MiB at most"]
    return table(head, rows, 6)


def endurance_table() -> str:
    """Return the table of memory over a hundred thousand requests."""
    stored = growth("endurance_mib")
    rows = []
    for io, resident in stored.items():
        change = resident[-1] / resident[1] - 1
        rows.append([io, *(f"{each:.1f}" for each in resident), f"{change:+.1%}"])
    head = ["io, MiB", *(f"{n * 10},000" for n in range(len(rows[0]) - 2))]
    head[1] = "0"
    head.append("since 10,000")
    return table(head, rows, len(head) - 1)


def start_table() -> str:
    """Return the table of starting."""
    rows = []
    for io, found in growth("start").items():
        for name, each in found.items():
            seconds = f"{median(each['seconds']):.2f}"
            spread = f"{min(each['seconds']):.2f} to {max(each['seconds']):.2f}"
            mib = f"{median(each['mib']):.0f}"
            rows.append([f"{io}, {NAMES[name]}", seconds, spread, mib])
    return table(["service", "CPU seconds", "of all starts", "MiB"], rows, 3)


def rendering_line() -> str:
    """Return how long rendering takes, and the tests of what was rendered."""
    rendering, tests = growth("rendering"), growth("own_tests")
    ours, empty = (median(rendering[each]) for each in ("template", "empty"))
    seconds = tests["seconds"]
    return (
        f"Rendering takes {ours:.2f} s, and {empty:.2f} s with a template of one "
        f"file (medians of {len(rendering['template'])}). The "
        f"{tests['passed']:,} tests of the variant with the most take "
        f"{median(seconds):.1f} s on SQLite ({min(seconds):.1f} to {max(seconds):.1f})."
    )


def where() -> str:
    """Return the machine and the versions."""
    found = figures.part("compare-async", "where")
    postgresql = figures.part("compare-async", "postgresql")
    versions = [f"{each} {found[each]}" for each in figures.PACKAGES]
    return (
        f"{found['processors']}, {found['system']}, {found['day']}; "
        f"Python {found['python']}, PostgreSQL {postgresql}, "
        f"{', '.join(versions)}."
    )


def plotted(found: dict[str, Any], part: str) -> float | None:
    """Return the figure of a service, unless it has failed."""
    if found["failed"]:
        return None
    value = median(found[part]) if part == "rate" else found[part]
    return float(value)


def plot(io: str, part: str, title: str, *, is_logarithmic: bool) -> str:
    """Return a plot of a figure by the number of clients."""
    panels: dict[str, dict[str, list[float | None]]] = {
        CALLED[each]: {NAMES[name]: [] for name in (*OURS[io], *PEERS[io])}
        for each in WORKLOADS
    }
    found = {(workload, count): each for workload, count, each in cells(io)}
    for workload in WORKLOADS:
        for clients in CLIENTS:
            measured = found.get((workload, clients))
            for name in (*OURS[io], *PEERS[io]):
                value = plotted(measured[name], part) if measured else None
                panels[CALLED[workload]][NAMES[name]].append(value)
    panels = {
        name: lines for name, lines in panels.items() if any(map(any, lines.values()))
    }
    ticks = [str(each) for each in CLIENTS]
    return line_plots(title, panels, ticks, "clients", is_logarithmic=is_logarithmic)


def plots_of(io: str) -> str:
    """Return the plots of this `io`, as the page shows them."""
    assert cells(io)
    return (
        f"![Requests a second by clients, {io}](costs/rate-{io}.svg)\n\n"
        f"![p99 in milliseconds by clients, {io}](costs/p99-{io}.svg)"
    )


TABLES: dict[str, Callable[[], str]] = {
    "where": where,
    "ratios-async": lambda: ratios("async"),
    "ratios-sync": lambda: ratios("sync"),
    "plots-async": lambda: plots_of("async"),
    "plots-sync": lambda: plots_of("sync"),
    "instructions": instruction_table,
    "guards": guard_table,
    "round-trips": round_trip_table,
    "processes": processes_table,
    "pools": lambda: by_size("pools", "pool"),
    "depth": depth_table,
    "export": export_table,
    "endurance": endurance_table,
    "start": start_table,
    "rendering": rendering_line,
    "everything-async": lambda: everything("async"),
    "everything-sync": lambda: everything("sync"),
}


def page(text: str) -> str:
    """Return the page with each table as it is now."""
    return filled(text, TABLES)


def plots() -> dict[str, str]:
    """Return all plots, by their file's name."""
    made = {}
    for io in OURS:
        if not figures.read(f"compare-{io}"):
            continue
        title = f"Requests a second by clients, {io}"
        made[f"rate-{io}.svg"] = plot(io, "rate", title, is_logarithmic=False)
        title = f"p99 in milliseconds by clients, {io}"
        made[f"p99-{io}.svg"] = plot(io, "p99", title, is_logarithmic=True)
    return made


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PLOTS.mkdir(exist_ok=True)
    for name, drawn in plots().items():
        (PLOTS / name).write_text(drawn, encoding="utf-8")
