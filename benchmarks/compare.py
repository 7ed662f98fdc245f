"""What a request costs in a rendered shop, and in services that are written by hand.

All of them run at the same time, and are asked in turn, for a quarter of a second, and
round after round: what the machine does besides slows all alike. A service that has
failed requests is started again, so that what waits there is not in its next round.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from random import Random
from typing import Any

import uvloop

from benchmarks import figures
from benchmarks.figures import Ratio
from benchmarks.load import Burst, Clients, percentile
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

ROUNDS = 31
SECONDS = 0.25
WARM_UP = 2  # rounds
# What is hopeless is not tried for ever.
MOST_FAILED_ROUNDS = 3
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
    made: Bench, services: Mapping[str, Service], workload: str, clients: int
) -> dict[str, Any]:
    """Return the figures of each service."""
    return uvloop.run(_rounds(made, services, workload, clients))


async def _rounds(
    made: Bench, services: Mapping[str, Service], workload: str, clients: int
) -> dict[str, Any]:
    asking = {
        name: Clients(service.port, workload, clients)
        for name, service in services.items()
    }
    bursts: dict[str, list[Burst]] = {name: [] for name in services}
    for number in range(WARM_UP + ROUNDS):
        for name, service in services.items():
            if sum(bool(each.failed) for each in bursts[name]) == MOST_FAILED_ROUNDS:
                continue
            pids = (service.pid, made.postmaster)
            burst = await asking[name].burst(pids, seconds=SECONDS)
            if number >= WARM_UP or burst.failed:
                bursts[name].append(burst)
            if burst.failed:
                asking[name].close()
                service.kill()
                service.start()
    for each in asking.values():
        each.close()
    return {name: summary(bursts[name]) for name in services}


def summary(bursts: list[Burst]) -> dict[str, Any]:
    """Return the figures of a service: the rate of each round, the rest of all."""
    times = [each for burst in bursts for each in burst.times]
    used = [sum(parts) for parts in zip(*(each.used for each in bursts), strict=True)]
    found: dict[str, Any] = {
        "rate": [_short(len(each.times) / each.elapsed) for each in bursts],
        "failed": sum(each.failed for each in bursts),
    }
    for name, part in {"p50": 0.5, "p99": 0.99}.items():
        value = percentile(times, part)
        found[name] = value and round(value, 2)
    for name, seconds in zip(("service", "database"), used, strict=True):
        found[name] = round(seconds / len(times) * 1_000_000) if times else None
    return found


def _short(rate: float) -> float:
    return round(rate) if rate >= 100 else round(rate, 1)


def show(io: str, workload: str, clients: int, measured: dict[str, Any]) -> None:
    """Print how many requests a second ours serve, beside each of the others."""
    for ours in OURS[io]:
        for peer in PEERS[io]:
            what = compared(measured, ours, peer)
            print(f"{io} {workload}, {clients} clients: {ours} to ({peer}): {what}")


def compared(measured: dict[str, Any], ours: str, peer: str) -> str:
    """Return how many times as many requests ours serves, or who fails."""
    mine, theirs = measured[ours], measured[peer]
    for name, each in {ours: mine, peer: theirs}.items():
        if each["failed"]:
            return f"{name} fails ({each['failed']:,} requests)"
    return str(Ratio.of(mine["rate"], theirs["rate"]))
