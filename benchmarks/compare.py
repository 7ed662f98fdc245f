"""What a request costs in a rendered shop, and in services that are written by hand.

All of them run at the same time, and are asked in turn, for a second or so, round after
round: what the machine does besides slows all alike. A service that has failed requests
is started again, so that what waits there does not reach into its next round.
"""

from __future__ import annotations

from contextlib import ExitStack
from random import Random
from typing import Any

from benchmarks import figures
from benchmarks.figures import Ratio
from benchmarks.serving import (
    OURS,
    PEERS,
    Bench,
    Service,
    alone,
    bench,
    contenders,
    responses,
)
from benchmarks.workloads import WORKLOADS, token

ROUNDS = 7
SECONDS = 0.8
WARM_UP = 0.2
CLIENTS = (1, 16, 64, 256)


def compare(io: str, workload: str, clients: int) -> None:
    """Measure a workload, with so many clients at a time, and store the figures."""
    before = alone()
    with bench() as made, ExitStack() as running:
        services = {
            name: Service(contender, made.database(), before=before)
            for name, contender in contenders(io, made.folder).items()
        }
        for service in services.values():
            running.enter_context(service)
        check(services)
        measured = rounds(made, services, workload, clients)
        ((version,),) = made.server.execute("SHOW server_version")
    show(io, workload, clients, measured)
    stored = figures.read(f"compare-{io}").get(workload, {})
    stored |= {str(clients): measured}
    figures.store(f"compare-{io}", {"postgresql": version, workload: stored})


def check(services: dict[str, Service]) -> None:
    """Raise `AssertionError` unless all respond with the same bytes."""
    asked = {name: make(Random(1), token()) for name, make in WORKLOADS.items()}
    first, *others = [responses(service, asked) for service in services.values()]
    for other in others:
        assert other == first, f"{other} is not {first}"


def rounds(
    made: Bench, services: dict[str, Service], workload: str, clients: int
) -> dict[str, Any]:
    """Return the figures of each service, of each round."""
    measured: dict[str, dict[str, list[float | None]]] = {
        name: {"rate": [], "p50": [], "p99": [], "service": [], "database": []}
        for name in services
    }
    failed = dict.fromkeys(services, 0)
    for _ in range(ROUNDS):
        for name, service in services.items():
            found = made.load(
                service, workload, clients, warm_up=WARM_UP, seconds=SECONDS
            )
            ok, figures_of = found["ok"], measured[name]
            figures_of["rate"].append(round(ok / found["seconds"], 1))
            for part in ("p50", "p99"):
                figures_of[part].append(found[part] and round(found[part], 2))
            for part, used in zip(("service", "database"), found["used"], strict=True):
                each = round(used / ok * 1_000_000) if ok else None
                figures_of[part].append(each)
            failed[name] += found["failed"]
            if found["failed"] or not ok:
                service.kill()
                service.start()
    return {name: measured[name] | {"failed": failed[name]} for name in services}


def show(io: str, workload: str, clients: int, measured: dict[str, Any]) -> None:
    """Print how many requests a second ours serve, beside each of the others."""
    for ours in OURS[io]:
        for peer in PEERS[io]:
            mine, theirs = measured[ours]["rate"], measured[peer]["rate"]
            what = str(Ratio.of(mine, theirs)) if all(theirs) else "it stops serving"
            print(f"{io} {workload}, {clients} clients: {ours} to ({peer}): {what}")
