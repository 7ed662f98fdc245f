"""What a failover does to the service: `.venv/bin/python -m benchmarks.failover`.

It starts a cluster of three nodes with Patroni, lets one thing after the other go wrong
under load, and writes what was seen from outside to `benchmarks/results/failover.json`,
and as the tables of `docs/failover.md`. All of it takes half an hour; options choose a
part, and what was measured before stays.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from argparse import ArgumentParser
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import figures
from benchmarks.page import filled, table
from tests.failover import FAULTS, LOSSES, attempt, cannot_happen
from tests.patroni import Patroni, what_is_missing
from tests.postgres import Server
from tests.template import EXTREMES, ROOT, VARIANTS, name_of, render

PAGE = ROOT / "docs" / "failover.md"
WAYS = {"hosts": "all hosts", "proxy": "HAProxy"}
# Which faults a table of the page has, and which columns.
KEPT = (
    *("acknowledged", "lost", "done twice", "refused, but stored", "totals wrong"),
    *("unknown", "of these stored"),
)
TIMES = (
    *("refused", "other answers", "without a write", "without the service"),
    *("longest answer", "without a read", "reads refused"),
)
TABLES: dict[str, tuple[list[str], tuple[str, ...]]] = {
    "kept": ([*FAULTS], KEPT),
    "times": ([*FAULTS], TIMES),
    "losses": ([*LOSSES], KEPT),
}


def cells(outcome: dict[str, Any]) -> dict[str, str]:
    """Return what was seen, by the columns' names."""
    alone = outcome["of_patroni" if outcome["way"] == "hosts" else "of_proxy"]
    refused = sum(outcome["refused"].values()) - outcome["unknown"]
    return {
        "acknowledged": f"{outcome['acknowledged']:,}",
        "lost": f"{outcome['lost']}",
        "done twice": f"{outcome['doubled']}",
        "refused, but stored": f"{outcome['refused_and_stored']}",
        "totals wrong": f"{outcome['wrong_totals']}",
        "unknown": f"{outcome['unknown']}",
        "of these stored": f"{outcome['unknown_stored']}",
        "refused": f"{refused:,}",
        "other answers": f"{len(outcome['odd'])}",
        "without a write": f"{outcome['without_write']:.1f} s",
        "without the service": f"{alone:.1f} s",
        "longest answer": f"{outcome['longest_answer']:.1f} s",
        "without a read": f"{outcome['without_read']:.1f} s",
        "reads refused": f"{outcome['reads_failed']} of {outcome['reads']:,}",
    }


def table_of(faults: list[str], columns: tuple[str, ...]) -> str:
    """Return what is stored of these faults, as a table in Markdown."""
    stored = figures.read("failover")
    rows = []
    for fault in faults:
        for way, name in WAYS.items():
            for variant in map(name_of, EXTREMES):
                if outcome := stored.get(f"{fault}/{way}/{variant}"):
                    found = cells(outcome)
                    io = variant.partition("-")[0]
                    rows.append([fault, name, io, *(found[each] for each in columns)])
    return table(["fault", "URL", "", *columns], rows, numbers=len(columns))


def page(text: str) -> str:
    """Return the text of the page with the tables of what is stored now."""
    return filled(text, {name: partial(table_of, *of) for name, of in TABLES.items()})


def main() -> None:
    """Let happen what is asked for, or everything."""
    first = (__doc__ or "").split("\n")[0]
    parser = ArgumentParser(prog="python -m benchmarks.failover", description=first)
    everything = [*FAULTS, *LOSSES]
    names = [name_of(each) for each in EXTREMES]
    parser.add_argument("fault", nargs="*", choices=[[], *everything], metavar="fault")
    parser.add_argument("--way", choices=WAYS, action="append")
    parser.add_argument("--variant", choices=names, action="append")
    options = parser.parse_args()
    if missing := what_is_missing():
        sys.exit(missing)
    # Whoever ends this by kill leaves no cluster behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory() as folder, Patroni() as cluster:
        [(server,)] = Server(cluster.url).execute("SHOW server_version")
        versions = {"patroni": version("patroni"), "postgresql": server}
        for variant in options.variant or names:
            (place := Path(folder, variant)).mkdir()
            project = render(VARIANTS[variant] | {"example": True}, place)
            for fault in options.fault or everything:
                if reason := cannot_happen(fault):
                    print(f"{fault}: {reason}")
                    continue
                for way in options.way or WAYS:
                    outcome = asdict(attempt(cluster, fault, project, variant, way))
                    print(fault, way, variant, cells(outcome), outcome["odd"])
                    key = f"{fault}/{way}/{variant}"
                    figures.store("failover", {"versions": versions, key: outcome})
                    PAGE.write_text(page(PAGE.read_text()))


if __name__ == "__main__":
    main()
