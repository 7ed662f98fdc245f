"""What several processes do on one database: `.venv/bin/python -m benchmarks.several`.

It serves the shop on one machine and on two, lets all clients order the same at once,
replaces a release by the next one under load, and writes what was seen to
`benchmarks/results/several.json`, and as the tables of `docs/several-processes.md`. All
of it takes a quarter of an hour; options choose a part, and what was measured before
stays.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks import figures
from benchmarks.page import filled, table
from tests.failover import MANY
from tests.machines import (
    CHANGES,
    PATIENTLY_LOCKED,
    WAYS,
    Deployment,
    Sale,
    deploy,
    next_release,
    sell,
    served,
    what_is_missing,
)
from tests.postgres import Cluster, Server
from tests.template import EXTREMES, ROOT, VARIANTS, name_of, render

PAGE = ROOT / "docs" / "several-processes.md"
NAMES = [name_of(each) for each in EXTREMES]
# Machines, and the workers of each.
SITES = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 2)]
# What the next release changes, how the machines come to serve it, and their workers.
DEPLOYMENTS = [
    ("a column and an index", "drained", 2),
    ("a column and an index", "drained", 1),
    ("a wider type", "drained", 2),
    ("a column and an index", "SIGTERM alone", 2),
    ("a column and an index", "SIGTERM alone", 1),
]
SOLD = (
    *("orders", "201", "409", "other answers", "pieces", "sold", "stored", "left"),
    *("connections", "allowed"),
)
DEPLOYED = (
    *("requests", "failed", "acknowledged", "lost", "done twice", "totals wrong"),
    *("longest answer", "connections", "allowed"),
)


def sales() -> str:
    """Return what is stored of orders for the same, as a table in Markdown."""
    stored = figures.read("several")
    rows = []
    for machines, workers in SITES:
        for variant in NAMES:
            if sale := stored.get(f"sale/{machines}/{workers}/{variant}"):
                statuses = sale["statuses"]
                others = sum(statuses.values()) + len(sale["odd"])
                others -= statuses["201"] + statuses["409"]
                found = [
                    *(sum(statuses.values()), statuses["201"], statuses["409"]),
                    *(others, sale["stock"], sale["sold"], sale["stored"]),
                    *(sum(sale["left"]), sale["connections"], sale["limit"]),
                ]
                io = variant.partition("-")[0]
                rows.append([f"{machines}", f"{workers}", io, *map(str, found)])
    return table(["machines", "workers of each", "", *SOLD], rows, numbers=len(SOLD))


def deployments() -> str:
    """Return what is stored of rolling deploys, as a table in Markdown."""
    stored = figures.read("several")
    rows = []
    for change, way, workers in DEPLOYMENTS:
        for variant in NAMES:
            if found := stored.get(f"deploy/{change}/{way}/{workers}/{variant}"):
                seen = found | found["outcome"]
                cells = [
                    *(f"{seen['requests']:,}", f"{sum(seen['failed'].values())}"),
                    *(f"{seen['acknowledged']:,}", f"{seen['lost']}"),
                    *(f"{seen['doubled']}", f"{seen['wrong_totals']}"),
                    f"{seen['longest_answer']:.1f} s",
                    *(f"{seen['connections']}", f"{seen['limit']}"),
                ]
                io = variant.partition("-")[0]
                rows.append([change, way, f"{workers}", io, *cells])
    head = ["migration", "machines are", "workers of each", "", *DEPLOYED]
    return table(head, rows, numbers=len(DEPLOYED))


def page(text: str) -> str:
    """Return the text of the page with the tables of what is stored now."""
    return filled(text, {"sales": sales, "deployments": deployments})


def sell_all(server: Server, project: Path, variant: str) -> None:
    """Let all order the same at once, with each number of processes."""
    for machines, workers in SITES:
        with served(project, server, machines, workers, **PATIENTLY_LOCKED) as site:
            store(f"sale/{machines}/{workers}/{variant}", sell(site))


def deploy_all(way: str, server: Server, project: Path, variant: str) -> None:
    """Replace the project by each next release, in one of the ways."""
    for change, its_way, workers in DEPLOYMENTS:
        if its_way != way:
            continue
        with (
            tempfile.TemporaryDirectory() as folder,
            served(project, server, 2, workers) as site,
        ):
            release = next_release(project, Path(folder), CHANGES[change])
            key = f"deploy/{change}/{way}/{workers}/{variant}"
            store(key, deploy(site, release, way, MANY))


def store(key: str, found: Sale | Deployment) -> None:
    """Put what was seen beside what is stored, and on the page."""
    print(key, found)
    figures.store("several", {key: asdict(found)})
    PAGE.write_text(page(PAGE.read_text()))


PARTS: dict[str, Callable[[Server, Path, str], None]] = {
    "sales": sell_all,
    **{way: partial(deploy_all, way) for way in WAYS},
}


def main() -> None:
    """Let happen what is asked for, or everything."""
    first = (__doc__ or "").split("\n")[0]
    parser = ArgumentParser(prog="python -m benchmarks.several", description=first)
    parser.add_argument("part", nargs="*", choices=[[], *PARTS], metavar="part")
    parser.add_argument("--variant", choices=NAMES, action="append")
    options = parser.parse_args()
    if missing := what_is_missing():
        sys.exit(missing)
    # Whoever ends this by kill leaves no server behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Cluster() as cluster:
        for variant in options.variant or NAMES:
            with tempfile.TemporaryDirectory() as folder:
                answers = VARIANTS[variant] | {"example": True}
                project = render(answers, Path(folder))
                for part in options.part or PARTS:
                    PARTS[part](Server(cluster.url), project, variant)


if __name__ == "__main__":
    main()
