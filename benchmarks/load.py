"""A client that costs little: so many connections, each of which asks again and again.

It asks in bursts, and each ends when all is answered: what one service has left to do
is not in another's figures. Linux only, as the kernel says what processes have used.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.workloads import WORKLOADS, token

TICKS = os.sysconf("SC_CLK_TCK")
# What is not answered by then is not waited for.
PATIENCE = 5


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


@dataclass(frozen=True)
class Burst:
    """What came of asking for a while."""

    elapsed: float
    times: list[float]
    """Of the requests that succeeded, in seconds."""
    failed: int
    """Responses of 400 and above, and requests without any."""
    used: list[float]
    """CPU seconds of each process that was named."""


class Connection(asyncio.Protocol):
    """Sends a request when the response to the last is complete."""

    def __init__(self, clients: Clients) -> None:
        """Ask as one of these clients."""
        self.clients = clients
        self.transport: asyncio.WriteTransport
        self._received = b""
        self._needed = 0
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        """Wait for a burst."""
        self.transport = transport

    def ask(self) -> None:
        """Send a request."""
        self._received, self._needed = b"", 0
        self._sent_at = time.perf_counter()
        self.transport.write(self.clients.next_request())

    def data_received(self, data: bytes) -> None:
        """Go on when the response is complete."""
        self._received += data
        if not self._needed:
            head, end, _ = self._received.partition(b"\r\n\r\n")
            if not end:
                return
            length = head.lower().partition(b"content-length:")[2].partition(b"\r")[0]
            self._needed = len(head) + len(end) + int(length)
        if len(self._received) >= self._needed:
            status = int(self._received[9:12])
            self.clients.answered(self, status, time.perf_counter() - self._sent_at)

    def connection_lost(self, _error: Exception | None) -> None:
        """Leave: servers close after some errors, and after a while."""
        self.clients.lost(self)


class Clients:
    """So many connections to a service on a port of this machine."""

    def __init__(self, port: int, workload: str, count: int) -> None:
        """Connect when the first burst begins."""
        make, random, ours = WORKLOADS[workload], Random(), token()
        self.next_request: Callable[[], bytes] = lambda: make(random, ours)
        self._port, self._count = port, count
        self._open: list[Connection] = []
        self._asking: set[Connection] = set()

    async def burst(
        self,
        pids: Sequence[int],
        *,
        seconds: float | None = None,
        requests: int | None = None,
    ) -> Burst:
        """Ask for some time, or so many times; return when all is answered."""
        loop = asyncio.get_running_loop()
        while len(self._open) < self._count:
            _, connection = await loop.create_connection(
                lambda: Connection(self), "127.0.0.1", self._port
            )
            self._open.append(connection)
        self._times: list[float] = []
        self._failed, self._left = 0, requests
        self._idle = asyncio.Event()
        used = [processor_seconds(pid) for pid in pids]
        start = time.perf_counter()
        self._end = start + seconds if seconds else float("inf")
        for connection in self._open:
            self._go_on(connection)
        if seconds:
            await asyncio.sleep(seconds)
        patience = PATIENCE if seconds else None
        try:
            async with asyncio.timeout(patience):
                await self._idle.wait()
        except TimeoutError:
            self._failed += len(self._asking)
            self.close()
        elapsed = time.perf_counter() - start
        after = [processor_seconds(pid) for pid in pids]
        spent = [end - begin for begin, end in zip(used, after, strict=True)]
        return Burst(elapsed, self._times, self._failed, spent)

    def close(self) -> None:
        """Hang up."""
        open, self._open = self._open, []
        self._asking.clear()
        for connection in open:
            connection.transport.close()

    def answered(self, connection: Connection, status: int, seconds: float) -> None:
        """Note a response, and go on."""
        if connection not in self._asking:
            return  # too late
        self._asking.remove(connection)
        if status < 400:
            self._times.append(seconds)
        else:
            self._failed += 1
        self._go_on(connection)

    def lost(self, connection: Connection) -> None:
        """Do without a connection for the rest of the burst."""
        if connection in self._open:
            self._open.remove(connection)
        if connection in self._asking:
            self._asking.remove(connection)
            self._failed += 1
        if not self._asking:
            self._idle.set()

    def _go_on(self, connection: Connection) -> None:
        is_over = time.perf_counter() > self._end or self._left == 0
        if not is_over and not connection.transport.is_closing():
            if self._left is not None:
                self._left -= 1
            self._asking.add(connection)
            connection.ask()
        elif not self._asking:
            self._idle.set()


def percentile(times: list[float], part: float) -> float | None:
    """Return the time that this part of them does not exceed, in milliseconds."""
    return sorted(times)[int(part * (len(times) - 1))] * 1_000 if times else None
