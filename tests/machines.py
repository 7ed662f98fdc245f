"""Machines that serve one database, several processes each, and HAProxy before them.

A machine is a port of this one, with uvicorn's parent process and its workers.
"""

from __future__ import annotations

import csv
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from httpx2 import Response

from tests.failover import SEED, Clients, Outcome, assess, loaded
from tests.patroni import port_to_keep, program
from tests.postgres import Server
from tests.service import MIGRATE, PATIENCE, Service, run, wait_until
from tests.shop import (
    PATIENTLY,
    Shop,
    create,
    locked,
    read,
    waiting_for_the_lock,
)
from tests.template import ROOT

POOL_SIZE = 3
# What docs/deploying.md of a project says that a process opens at most.
OF_A_PROCESS = 2 * POOL_SIZE + 1
SETTINGS: dict[str, Any] = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "of all machines " * 2,
    "DATABASE_POOL_SIZE": POOL_SIZE,
    "UVICORN_TIMEOUT_GRACEFUL_SHUTDOWN": 20,
    **PATIENTLY,
}
PAGE = ROOT / "docs" / "pages" / "past-one-machine.md"
SERVERS = "    server a 10.0.0.1:8000\n    server b 10.0.0.2:8000\n"


def what_is_missing() -> str:
    """Return why there can be no HAProxy here, or nothing."""
    return "" if program("haproxy") else "haproxy is not installed (apt: haproxy)"


class Machine:
    """Where a release is served: a port, and workers that share it."""

    def __init__(self, name: str, workers: int, **settings: Any) -> None:
        """Choose the port, which stays from release to release."""
        self.name = name
        self.port = port_to_keep()
        ours = {"UVICORN_PORT": self.port, "UVICORN_WORKERS": workers}
        self._settings = settings | ours
        self._served = ExitStack()

    def start(self, release: Path) -> None:
        """Serve a release, and return when it is ready."""
        self.service = self._served.enter_context(Service(release, **self._settings))

    def stop(self) -> None:
        """End the release as a platform does, which says nothing of errors."""
        os.kill(self.service.pid, signal.SIGTERM)
        assert self.service.wait() in {0, -signal.SIGTERM}
        log = self.service.log
        self._served.close()
        # The app writes JSON in production; uvicorn's parent process does not.
        errors = re.findall(r'^ERROR:.*|.*"level": "ERROR".*', log, re.MULTILINE)
        assert not errors, errors

    def version(self) -> str:
        """Return the version of the release that is served."""
        document = self.service.client().get("/openapi.json").json()
        return str(document["info"]["version"])

    def remove(self) -> None:
        """End the release, if one is served."""
        self._served.close()


class HAProxy(Service):
    """What clients know of the machines: it asks those that are ready.

    It has the configuration of our page, but for the places.
    """

    # SIGINT it ignores if a shell in the background has started us.
    ended_by = signal.SIGTERM

    def __init__(self, folder: Path, machines: list[Machine]) -> None:
        """Write the configuration; entering starts it."""
        self._port = port_to_keep()
        self._socket = folder / "admin.sock"
        config = folder / "haproxy.cfg"
        servers = [
            f"    server {each.name} 127.0.0.1:{each.port}\n" for each in machines
        ]
        (text,) = re.findall(r"```text\n(global\n.*?)```", PAGE.read_text(), re.DOTALL)
        for theirs, ours in {
            "/run/haproxy/admin.sock mode 660": f"{self._socket} mode 600",
            "bind :80": f"bind 127.0.0.1:{self._port}",
            SERVERS: "".join(servers),
        }.items():
            assert theirs in text
            text = text.replace(theirs, ours)
        config.write_text(text)
        super().__init__(folder, program("haproxy") or "haproxy", "-db", "-f", config)

    def drain(self, machine: Machine) -> None:
        """Send no more requests to a machine; return when those it has are answered."""
        self._tell(f"set server service/{machine.name} state drain")
        wait_until(lambda: self._of(machine)["scur"] == "0", what="requests to end")

    def admit(self, machine: Machine) -> None:
        """Send requests to a machine again; return when it has been found ready."""
        self._tell(f"set server service/{machine.name} state ready")
        wait_until(lambda: self._of(machine)["status"] == "UP", what="a machine")

    def served(self, machine: Machine) -> int:
        """Return how many requests a machine has been sent."""
        return int(self._of(machine)["stot"])

    def _of(self, machine: Machine) -> dict[str, str]:
        lines = self._tell("show stat").removeprefix("# ").splitlines()
        (found,) = (
            row for row in csv.DictReader(lines) if row["svname"] == machine.name
        )
        return found

    def _tell(self, command: str) -> str:
        """Return what HAProxy answers to a command of its runtime API."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{command}\n".encode())
            with connection.makefile() as answer:
                return answer.read()

    def _has_spoken_or_ended(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port)):
            self.url = f"http://127.0.0.1:{self._port}"
        return bool(self.url) or self._process.poll() is not None


@contextmanager
def account(server: Server, database: str, connections: int) -> Iterator[str]:
    """Give the URL of an account that PostgreSQL allows so many connections."""
    name, password = f"shop_{secrets.token_hex(8)}", secrets.token_hex(16)
    rights = f"LOGIN PASSWORD '{password}' CONNECTION LIMIT {connections}"
    for statement in (
        f"CREATE ROLE {name} {rights}",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {name}",
    ):
        server.execute(statement, database)
    parts = urlsplit(database)
    address = parts.netloc.rpartition("@")[2]
    try:
        yield parts._replace(netloc=f"{name}:{password}@{address}").geturl()
    finally:
        server.execute(f"DROP OWNED BY {name}", database)
        server.execute(f"DROP ROLE {name}")


@dataclass(frozen=True)
class Site:
    """A shop that machines serve, through HAProxy where there are several."""

    shop: Shop
    machines: list[Machine]
    workers: int
    """Of each machine."""
    limit: int
    """How many connections PostgreSQL allows all processes together."""

    @property
    def haproxy(self) -> HAProxy:
        """What leads to the machines."""
        assert isinstance(self.shop.service, HAProxy)
        return self.shop.service

    def connections(self) -> int:
        """Return how many connections the machines have; migrations' are ours."""
        return self.shop.connections("usename <> current_user")


@contextmanager
def served(
    project: Path, server: Server, machines: int, workers: int, **settings: Any
) -> Iterator[Site]:
    """Serve a project on machines that have so many workers each.

    They have the connections that the project's docs say, and not one more.
    """
    url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    server.execute(SEED, url)
    limit = machines * workers * OF_A_PROCESS
    with ExitStack() as stack:
        settings = SETTINGS | settings
        settings["DATABASE_URL"] = stack.enter_context(account(server, url, limit))
        places = [Machine(name, workers, **settings) for name in "abcd"[:machines]]
        for each in places:
            stack.callback(each.remove)
            each.start(project)
        service = places[0].service
        if machines > 1:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            service = stack.enter_context(HAProxy(folder, places))
        shop = Shop(service, url, lambda statement: server.execute(statement, url))
        yield Site(shop, places, workers, limit)


@contextmanager
def counted(site: Site) -> Iterator[list[int]]:
    """Give how many connections there were, over and over, while this lasts."""
    counts: list[int] = []
    enough = threading.Event()

    def count() -> None:
        while not enough.wait(0.1):
            counts.append(site.connections())

    with ThreadPoolExecutor(1) as thread:
        counting = thread.submit(count)
        try:
            yield counts
        finally:
            enough.set()
    counting.result()


# For those who wait until all others wait as well.
PATIENTLY_LOCKED = {
    "DATABASE_LOCK_TIMEOUT": PATIENCE,
    "DATABASE_STATEMENT_TIMEOUT": 2 * PATIENCE,
}
# Each of two products: half of those who order the first want the other one as well.
SCARCE, ORDERS = 20, 120


@dataclass
class Sale:
    """What came of more orders at once than there was stock for."""

    machines: int
    workers: int
    statuses: dict[int, int]
    stock: int
    """What there was of both products, together."""
    sold: int
    """By what the clients were told."""
    stored: int
    """By the lines of the orders that are stored."""
    left: list[int]
    """What there is of each product."""
    connections: int
    limit: int
    odd: list[str]
    """What those were told who read meanwhile, unless it was a product."""


def sell(site: Site) -> Sale:
    """Let all order at one moment, when all processes have all their connections."""
    shop = site.shop
    client = shop.client()
    scarce = [create(client, SCARCE).json()["id"] for _ in range(2)]
    asked: list[Future[Response]] = []
    reads: list[Future[Response]] = []

    def order(number: int) -> Response:
        lines = [{"product_id": id, "quantity": 1} for id in scarce[: 1 + number % 2]]
        # In any order, and with what is left of both.
        new = {"items": lines[:: 1 if number % 4 else -1], "on_shortage": "skip"}
        return client.post("/orders", json=new)

    full = len(site.machines) * site.workers * 2 * POOL_SIZE

    def is_full() -> bool:
        if waiting_for_the_lock(shop) == full:
            return True
        if len(asked) < ORDERS:
            asked.append(threads.submit(order, len(asked)))
            reads.append(threads.submit(read, client))
        return False

    with ThreadPoolExecutor(2 * ORDERS) as threads:
        with locked(shop):
            wait_until(is_full, what="all connections to be in use")
            connections = site.connections()
            while len(asked) < ORDERS:
                asked.append(threads.submit(order, len(asked)))
        answers = [each.result() for each in asked]
        odd = [each.result().text for each in reads if not each.result().is_success]
    placed = [each.json()["items"] for each in answers if each.status_code == 201]
    ids = ", ".join(map(str, scarce))
    ((stored,),) = shop.sql(
        f"SELECT sum(quantity) FROM order_items WHERE product_id IN ({ids})"
    )
    left = shop.sql(f"SELECT stock FROM products WHERE id IN ({ids}) ORDER BY id")
    return Sale(
        len(site.machines),
        site.workers,
        dict(Counter(each.status_code for each in answers)),
        2 * SCARCE,
        sum(line["quantity"] for lines in placed for line in lines),
        int(stored),
        [stock for (stock,) in left],
        connections,
        site.limit,
        odd,
    )


@dataclass(frozen=True)
class Change:
    """What a next release changes in the code of the one before, and the database."""

    texts: dict[str, dict[str, str]]
    models: dict[str, str]
    """In app/products/models.py, for either ORM."""
    migration: str


MIGRATION = '''\
"""What the next release needs."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"
branch_labels = depends_on = None


def upgrade() -> None:
'''
STOCK = {
    "sqlalchemy": "    stock: Mapped[int] = mapped_column(BigInteger, index=True)\n",
    "sqlmodel": "    stock: int = Field(sa_type=BigInt, index=True)\n",
}
CHANGES = {
    "a column and an index": Change(
        {
            "app/products/schemas.py": {
                # What clients send, and what they get.
                "    stock: Stock\n": "    stock: Stock\n    weight: Stock = 0\n",
                "    stock: int\n": "    stock: int\n    weight: int\n",
            },
            "app/products/repository.py": {
                "Product.price, Product.stock)\n": (
                    "Product.price, Product.stock)\n    columns += (Product.weight,)\n"
                ),
            },
        },
        {
            STOCK["sqlalchemy"]: STOCK["sqlalchemy"]
            + "    weight: Mapped[int] = mapped_column(\n"
            + '        BigInteger, index=True, server_default="0"\n    )\n',
            STOCK["sqlmodel"]: STOCK["sqlmodel"]
            + "    weight: int = Field(\n"
            + "        default=0, sa_type=BigInt, index=True,\n"
            + '        sa_column_kwargs={"server_default": "0"},\n    )\n',
        },
        """\
    column = sa.Column("weight", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("products", column)
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.create_index(
            "ix_products_weight", "products", ["weight"], postgresql_concurrently=True
        )
""",
    ),
    "a wider type": Change(
        {},
        {
            "mapped_column(String(200))": "mapped_column(String(300))",
            "Field(max_length=200)": "Field(max_length=300)",
        },
        '    op.alter_column("products", "name", type_=sa.String(300))\n',
    ),
}
VERSIONS = ("0.1.0", "0.2.0")


def next_release(project: Path, folder: Path, change: Change) -> Path:
    """Return a copy of a project that is changed, and has another version's number."""
    release = shutil.copytree(project, folder / "next")
    old_number, new_number = (f'version = "{each}"' for each in VERSIONS)
    number = {"pyproject.toml": {old_number: new_number}}
    for name, texts in (number | change.texts).items():
        path = release / name
        text = path.read_text()
        for old, new in texts.items():
            assert old in text, old
            text = text.replace(old, new, 1)
        path.write_text(text)
    models = release / "app/products/models.py"
    text = models.read_text()
    # One of them is this ORM's.
    ((old, new),) = (each for each in change.models.items() if each[0] in text)
    models.write_text(text.replace(old, new, 1))
    migration = release / "migrations/versions/0002_next.py"
    migration.write_text(MIGRATION + change.migration)
    return release


@dataclass
class Deployment:
    """What clients have seen of a rolling deploy, and what is stored."""

    outcome: Outcome
    requests: int
    failed: dict[str, int]
    connections: int
    """The most that the machines had at once."""
    limit: int
    versions: list[str]
    """Of the releases that the machines serve in the end."""


def drained(site: Site, machine: Machine, release: Path) -> None:
    """Replace what a machine serves, when nobody asks it any more."""
    site.haproxy.drain(machine)
    machine.stop()
    machine.start(release)
    site.haproxy.admit(machine)


def by_sigterm_alone(site: Site, machine: Machine, release: Path) -> None:
    """Replace what a machine serves, of which HAProxy finds out by itself."""
    machine.stop()
    machine.start(release)
    site.haproxy.admit(machine)


WAYS: dict[str, Callable[[Site, Machine, Path], None]] = {
    "drained": drained,
    "SIGTERM alone": by_sigterm_alone,
}


def deploy(site: Site, release: Path, way: str, clients: Clients) -> Deployment:
    """Migrate, then replace one machine after the other, under load."""
    replace = WAYS[way]
    with counted(site) as counts, loaded(site.shop, lambda: None, clients) as load:

        def wait_for_answers() -> None:
            """Return when all machines have been asked for more than they have now."""
            before = [site.haproxy.served(each) for each in site.machines]
            wait_until(
                lambda: all(
                    site.haproxy.served(machine) > count + 25
                    for machine, count in zip(site.machines, before, strict=True)
                ),
                what="requests to all machines",
            )

        wait_for_answers()
        run(release, *MIGRATE, DATABASE_URL=site.shop.url)
        wait_for_answers()
        for machine in site.machines:
            replace(site, machine, release)
            wait_for_answers()
    outcome = Outcome("rolling deploy", "", way)
    assess(outcome, load, site.shop)
    failed = [each for each in load.attempts if not each.succeeded]
    return Deployment(
        outcome,
        len(load.attempts),
        dict(Counter(f"{each.kind}: {each.status} {each.type}" for each in failed)),
        max(counts),
        site.limit,
        [each.version() for each in site.machines],
    )
