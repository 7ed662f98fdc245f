"""Services to measure: rendered shops and their peers, each on a database of its own.

A service gets a processor for itself, where there are two or more; its clients and
PostgreSQL share the others. All run by uvicorn with the same options, and log no
request.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import uvloop

from benchmarks.load import Burst, Clients
from benchmarks.workloads import ROWS, SECRET_KEY, TIDY
from tests.postgres import Cluster, Server, free_port
from tests.service import MIGRATE, environment_with, run, wait_until
from tests.template import DEFAULT, ROOT, VARIANTS, render

PROCESSORS = sorted(os.sched_getaffinity(0))
POOL_SIZE = 15
SETTINGS = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET_KEY,
    "LOG_LEVEL": "WARNING",
    "DATABASE_POOL_SIZE": POOL_SIZE,
}
# With httptools and uvloop, which uvicorn takes when its `standard` extra is there.
UVICORN = (
    *(sys.executable, "-m", "uvicorn", "--no-access-log", "--log-level", "warning"),
    *("--http", "httptools", "--loop", "uvloop"),
)
PEERS = {
    "async": {"a": "async_sqlalchemy", "b": "async_defaults", "c": "async_asyncpg"},
    "sync": {"a": "sync_sqlalchemy", "b": "sync_defaults", "c": "sync_psycopg"},
}
# Of each `io`, one with either ORM.
OURS = {
    "async": {
        "sqlalchemy": "async-sqlalchemy-auto-repository",
        "sqlmodel": "async-sqlmodel-manual-unit_of_work",
    },
    "sync": {
        "sqlalchemy": "sync-sqlalchemy-auto-repository",
        "sqlmodel": "sync-sqlmodel-manual-unit_of_work",
    },
}


@dataclass(frozen=True)
class Contender:
    """A service that can be started: an application in a folder."""

    folder: Path
    application: str


def contenders(io: str, folder: Path) -> dict[str, Contender]:
    """Return our own of this `io`, rendered into the folder, and their peers."""
    found = {}
    for name, variant in OURS[io].items():
        (place := folder / f"{io}-{name}").mkdir()
        project = render(dict(VARIANTS[variant]), place)
        found[name] = Contender(project, "app.main:app")
    for name, module in PEERS[io].items():
        found[name] = Contender(ROOT, f"benchmarks.peers.{module}:app")
    return found


class Service:
    """A service that runs; it can be started again."""

    def __init__(
        self,
        contender: Contender,
        url: str,
        *options: str,
        before: tuple[str, ...] = (),
        patience: float = 60,
        **settings: Any,
    ) -> None:
        """Take what to run, its database, more options for uvicorn, and settings.

        `before` is a command that runs it.
        """
        self.contender = contender
        self.port = free_port()
        self._command = (*before, *UVICORN, "--port", str(self.port), *options)
        self._settings = SETTINGS | {"DATABASE_URL": url} | settings
        self._patience = patience

    @property
    def pid(self) -> int:
        """The process that was started."""
        return self._process.pid

    def start(self) -> None:
        """Start it, and return when it responds."""
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed by stop)
        self._process = subprocess.Popen(
            [*self._command, self.contender.application],
            cwd=self.contender.folder,
            env=environment_with(**self._settings),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            wait_until(self._responds, self._patience)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it, in order if it does so within seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGINT)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._log.close()

    def kill(self) -> None:
        """End it at once."""
        os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _responds(self) -> bool:
        if self._process.poll() is not None:
            self._log.seek(0)
            raise AssertionError(self._log.read().decode()[-4000:])
        try:
            response = httpx2.get(
                f"http://127.0.0.1:{self.port}/products/1", timeout=60
            )
        except httpx2.TransportError:
            return False
        assert response.status_code == 200, response.text
        return True

    def __enter__(self) -> Service:
        """Start it."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self.stop()


class Bench:
    """A server with a filled database, of which every service gets a copy."""

    def __init__(self, cluster: Cluster, more_rows: str = "") -> None:
        """Fill it, with `more_rows` by SQL."""
        self.cluster = cluster
        self.server = Server(cluster.url)
        self.folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
        (place := self.folder / "migrations").mkdir()
        self._filled = self.server.create_database()
        project = render(dict(DEFAULT), place)
        run(project, *MIGRATE, DATABASE_URL=self._filled)
        self.server.execute(ROWS + more_rows, self._filled)
        self.server.execute(TIDY, self._filled)

    def database(self) -> str:
        """Return the URL of a copy."""
        return self.server.create_database(template=self._filled)

    @property
    def postmaster(self) -> int:
        """The server's process."""
        text = (self.cluster.data / "postmaster.pid").read_text()
        return int(text.partition("\n")[0])

    def ask(self, service: Service, workload: str, clients: int, requests: int) -> None:
        """Ask so many times; all has to succeed."""
        asking = Clients(service.port, workload, clients)

        async def ask() -> Burst:
            burst = await asking.burst([], requests=requests)
            asking.close()
            return burst

        burst = uvloop.run(ask())
        assert not burst.failed, f"{burst.failed} failed"


@contextlib.contextmanager
def bench(more_rows: str = "") -> Iterator[Bench]:
    """Give a bench, on a server of its own."""
    with Cluster() as cluster:
        made = Bench(cluster, more_rows)
        try:
            yield made
        finally:
            shutil.rmtree(made.folder)


def alone() -> tuple[str, ...]:
    """Keep what is started from here off a processor; return what runs a service there.

    Nothing, where there is one processor only.
    """
    first, *others = PROCESSORS
    if not others:
        return ()
    os.sched_setaffinity(0, others)
    return ("taskset", "--cpu-list", str(first))


def together() -> None:
    """Let what is started from here use all processors."""
    os.sched_setaffinity(0, PROCESSORS)


def responses(service: Service, asked: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return status and body of the response to each request."""
    return {name: response_of(service, each) for name, each in asked.items()}


def response_of(service: Service, asked: bytes) -> bytes:
    """Return status and body of the response to a request as it is sent."""
    head, _, body = asked.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    method, path, _ = first.split(" ")
    response = httpx2.request(
        method,
        f"http://127.0.0.1:{service.port}{path}",
        content=body,
        headers=dict(field.split(": ", 1) for field in fields),
        timeout=60,
    )
    return f"{response.status_code} ".encode() + response.content
