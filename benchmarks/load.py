"""A client that costs little: so many connections, each of which asks again and again.

It is a process of its own, which reads what to do from standard input as JSON and
prints what came of it: `python -m benchmarks.load`. Linux only.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import uvloop

from benchmarks.workloads import WORKLOADS

TICKS = os.sysconf("SC_CLK_TCK")


def processor_seconds(pid: int) -> float:
    """Return what a process and its children, those that have ended too, have used."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    used = sum(map(int, stat[11:15])) / TICKS
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        try:
            used += processor_seconds(int(child))
        except OSError:
            continue  # it has ended just now
    return used


class Asking(asyncio.Protocol):
    """A connection: the next request follows the response at once."""

    def __init__(self, tally: Tally) -> None:
        """Count there."""
        self.tally = tally
        self.transport: asyncio.WriteTransport
        self.received = b""
        self.needed = 0
        self.sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        """Send a request, if there is one left."""
        if self.tally.left is not None:
            if not self.tally.left:
                return
            self.tally.left -= 1
        self.received, self.needed = b"", 0
        self.sent_at = time.perf_counter()
        self.transport.write(self.tally.next_request())

    def data_received(self, data: bytes) -> None:
        """Go on when the response is complete."""
        self.received += data
        if not self.needed:
            head, end, _ = self.received.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            self.needed = len(head) + len(end) + int(length)
        if len(self.received) >= self.needed:
            status = int(self.received[9:12])
            self.tally.count(status, self.sent_at)
            if not self.transport.is_closing():
                self.ask()

    def connection_lost(self, _error: Exception | None) -> None:
        """Connect again, unless it is over: servers close after some errors."""
        self.tally.reconnect()


class Tally:
    """What has come of the requests since counting began."""

    def __init__(
        self, port: int, next_request: Callable[[], bytes], most: int | None
    ) -> None:
        """Ask on this port of this machine, at most so often."""
        self.port = port
        self.next_request = next_request
        self.seconds: list[float] = []
        self.failed = 0
        self.is_counting = self.is_over = False
        self.most = self.left = most
        self.done = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def count(self, status: int, sent_at: float) -> None:
        """Note a response."""
        if not self.is_counting:
            return
        if status < 400:
            self.seconds.append(time.perf_counter() - sent_at)
        else:
            self.failed += 1
        if self.most == len(self.seconds) + self.failed:
            self.done.set()

    def reconnect(self) -> None:
        """Replace a connection."""
        if not self.is_over and self.left != 0:
            task = asyncio.ensure_future(self.connect())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def connect(self) -> None:
        """Open a connection, which begins to ask."""
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Asking(self), "127.0.0.1", self.port)


async def ask(todo: dict[str, Any]) -> dict[str, Any]:
    """Ask for as long, or as often, as it says; return counts, times and costs."""
    make, random = WORKLOADS[todo["workload"]], Random()
    most = todo.get("requests")
    tally = Tally(todo["port"], lambda: make(random, todo["token"]), most)
    tally.is_counting = most is not None
    used = list(map(processor_seconds, todo["pids"]))
    start = time.perf_counter()
    for _ in range(todo["clients"]):
        await tally.connect()
    if most is None:
        await asyncio.sleep(todo["warm_up"])
        used = list(map(processor_seconds, todo["pids"]))
        start, tally.is_counting = time.perf_counter(), True
        await asyncio.sleep(todo["seconds"])
    else:
        await tally.done.wait()
    elapsed = time.perf_counter() - start
    tally.is_counting, tally.is_over = False, True
    after = list(map(processor_seconds, todo["pids"]))
    times = sorted(tally.seconds)
    return {
        "seconds": elapsed,
        "ok": len(times),
        "failed": tally.failed,
        "used": [end - begin for begin, end in zip(used, after, strict=True)],
        "p50": percentile(times, 0.5),
        "p99": percentile(times, 0.99),
    }


def percentile(times: list[float], part: float) -> float | None:
    """Return the time that this part of them does not exceed, in milliseconds."""
    return times[int(part * (len(times) - 1))] * 1_000 if times else None


if __name__ == "__main__":
    print(json.dumps(uvloop.run(ask(json.load(sys.stdin)))))
