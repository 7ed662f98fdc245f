"""A shop under load on a cluster that fails over, and what is seen from outside."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import psycopg
from httpx2 import HTTPError, Response

from tests.patroni import Node, Patroni, program, until
from tests.postgres import Server
from tests.service import MIGRATE, run
from tests.shop import (
    UNKNOWN,
    Shop,
    Somebody,
    an_order,
    assert_tells_nothing,
    export,
    fulfil,
    new_product,
    register,
    serve,
    sign_in,
    transfer,
)

USERS = 8
# Nobody asks as fast as possible: the processors are for what is looked at.
PAUSE = 0.2
# Who looks whether there is a primary does not wait for one that is gone.
PROBE: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": 2,
    "tcp_user_timeout": 2_000,
    **{"keepalives_idle": 2, "keepalives_interval": 1, "keepalives_count": 2},
}
STOCK = 10**9
BALANCE = 10**12
SEEDED = 300
# Each user orders a product of their own, and none becomes poor. There are so many that
# an index finds them: otherwise all transfers are in each other's way.
SEED = f"""
INSERT INTO products (sku, name, price, stock)
SELECT 'seeded-' || number, repeat('n', 200), 1, {STOCK}
FROM generate_series(1, {SEEDED}) AS number;
INSERT INTO users (email, full_name, password_hash, balance)
SELECT 'seeded-' || number, 'Nobody', '', {BALANCE}
FROM generate_series(1, 5000) AS number;
ANALYZE
"""
WRONG_STOCKS = f"""
SELECT id FROM products WHERE sku LIKE 'seeded-%' AND stock <> {STOCK} - (
    SELECT coalesce(sum(quantity), 0) FROM order_items WHERE product_id = products.id
)
"""
WRONG_BALANCES = f"""
SELECT email FROM users WHERE balance <> {BALANCE}
    + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE recipient_id = users.id)
    - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE sender_id = users.id)
"""
# What each write is known by, in the database as outside.
STORED = """
SELECT 'create', sku FROM products WHERE sku NOT LIKE 'seeded-%'
UNION ALL SELECT 'order', email || ' ' || total
FROM orders JOIN users ON users.id = user_id
UNION ALL SELECT 'transfer', email || ' ' || amount
FROM transfers JOIN users ON users.id = sender_id
"""


class Attempt(NamedTuple):
    """What somebody asked for, when, and what came of it; 0 is a cut connection."""

    kind: str
    key: str
    begin: float
    end: float
    status: int
    type: str

    @property
    def succeeded(self) -> bool:
        """Whether it was done."""
        return self.status == SUCCESS[self.kind]


class Clients(NamedTuple):
    """How many do what, over and over."""

    writers: int
    """A multiple of the users, so that each has keys of its own."""
    readers: int
    exporters: int
    fulfillers: int


MANY = Clients(writers=32, readers=8, exporters=2, fulfillers=2)
WRITES = {"create": 201, "order": 201, "transfer": 201, "fulfil": 202}
READS = {"read": 200, "export": 200}
SUCCESS = WRITES | READS


@dataclass
class Load:
    """Clients that write and read, one thing after the other each."""

    clients: Clients
    users: list[Somebody]
    attempts: list[Attempt] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    """Answers that nobody should get."""
    refusals: list[Response] = field(default_factory=list)
    placed: queue.SimpleQueue[tuple[Somebody, int]] = field(
        default_factory=queue.SimpleQueue
    )
    enough: threading.Event = field(default_factory=threading.Event)

    def ask(
        self,
        kind: str,
        key: str,
        what: Callable[..., Response],
        *args: Any,
        **more: Any,
    ) -> Response | None:
        """Do one thing, note what came of it, and return the answer if it is whole."""
        begin = time.monotonic()
        try:
            answer = what(*args, **more)
        except HTTPError as error:
            self._note(kind, key, begin, 0, repr(error))
            if kind != "export":
                self.odd.append(f"{kind}: {error!r}")
            return None
        # A proxy that finds nobody to ask has an answer of its own.
        is_problem = answer.headers["Content-Type"] == "application/problem+json"
        problem = str(answer.json()["type"]) if is_problem else ""
        self._note(kind, key, begin, answer.status_code, problem)
        if is_problem and answer.status_code in {503, 504}:
            self.refusals.append(answer)
        elif answer.status_code != SUCCESS[kind]:
            self.odd.append(f"{kind}: {answer.status_code} {answer.text}")
        return answer

    def _note(
        self, kind: str, key: str, begin: float, status: int, problem: str
    ) -> None:
        self.attempts.append(
            Attempt(kind, key, begin, time.monotonic(), status, problem)
        )

    def write(self, number: int) -> None:
        """Create, order and transfer; each has a key that no other has."""
        user, friend = (self.users[(number + i) % USERS] for i in (0, 1))
        client, random = user.client, Random(number)
        for each in itertools.count(number, self.clients.writers):
            if self.enough.wait(random.uniform(0, PAUSE)):
                return
            match random.randrange(3):
                case 0:
                    new = new_product()
                    self.ask("create", new["sku"], client.post, "/products", json=new)
                case 1:
                    # Its total is its quantity: what they order costs 1 each.
                    total = 1 + each // USERS
                    key = f"{user.email} {total}"
                    new = an_order(1 + number % USERS, quantity=total)
                    placed = self.ask("order", key, client.post, "/orders", json=new)
                    if placed is not None and placed.status_code == 201:
                        self.placed.put((user, placed.json()["id"]))
                case 2:
                    key = f"{user.email} {each + 1}"
                    self.ask("transfer", key, transfer, client, friend.email, each + 1)

    def read(self, number: int) -> None:
        """Read a product, some products, and who one is."""
        client, random = self.users[number % USERS].client, Random(number)
        while not self.enough.wait(random.uniform(0, PAUSE)):
            path = random.choice(["/products/1", "/products?limit=5", "/users/me"])
            self.ask("read", path, client.get, path)

    def stream(self, number: int) -> None:
        """Export all products: what ends in order has to be all of them."""
        client = self.users[number % USERS].client
        while not self.enough.wait(PAUSE):
            answer = self.ask("export", "", export, client)
            if answer is not None and answer.status_code == 200:
                ids = [json.loads(line)["id"] for line in answer.text.splitlines()]
                if ids[:SEEDED] != [*range(1, SEEDED + 1)] or ids != sorted(ids):
                    self.odd.append(f"export: {len(ids)} rows")

    def fulfil(self, _number: int) -> None:
        """Have orders sent that were placed, which is done in the background."""
        while not self.enough.wait(PAUSE):
            with contextlib.suppress(queue.Empty):
                user, order = self.placed.get(timeout=PAUSE)
                self.ask("fulfil", str(order), fulfil, user.client, order)


@contextmanager
def loaded(
    shop: Shop, catch_up: Callable[[], None], clients: Clients = MANY
) -> Iterator[Load]:
    """Give what clients have asked for so far; they ask as long as it lasts.

    `catch_up` returns when what was written by now can be read everywhere.
    """
    stranger = shop.service.client()
    emails = [f"{number}@example.com" for number in range(USERS)]
    for email in emails:
        assert register(stranger, email).status_code == 201
    shop.sql(f"UPDATE users SET balance = {BALANCE}")
    # Signing in only reads, and so does much of what follows.
    catch_up()
    tokens = [sign_in(stranger, email).json()["access_token"] for email in emails]
    signed_in = map(shop.service.client, tokens)
    users = [Somebody(*each) for each in zip(emails, signed_in, strict=True)]
    load = Load(clients, users)
    roles: list[tuple[Callable[[int], None], int]] = [
        *((load.write, clients.writers), (load.read, clients.readers)),
        *((load.stream, clients.exporters), (load.fulfil, clients.fulfillers)),
    ]
    with ThreadPoolExecutor(sum(count for _, count in roles)) as threads:
        asked = [
            threads.submit(ask, number)
            for ask, count in roles
            for number in range(count)
        ]
        try:
            yield load
        finally:
            load.enough.set()
    for each in asked:
        each.result()


@contextmanager
def probed(*urls: str) -> Iterator[list[float]]:
    """Give the moments at which a write was accepted at one of these URLs.

    It is the measure for the service: nobody asks more often, or needs less.
    """
    moments: list[float] = []
    enough = threading.Event()

    def probe(url: str) -> None:
        while not enough.wait(0.02):
            with (
                contextlib.suppress(psycopg.Error),
                psycopg.connect(url, **PROBE) as connection,
            ):
                while not enough.wait(0.02):
                    connection.execute("INSERT INTO probe DEFAULT VALUES")
                    moments.append(time.monotonic())

    with ThreadPoolExecutor(len(urls)) as threads:
        asked = [threads.submit(probe, url) for url in urls]
        try:
            yield moments
        finally:
            enough.set()
    for each in asked:
        each.result()


def of_database(url: str, database: str) -> str:
    """Return the URL with the database of the other one."""
    return urlsplit(url)._replace(path=urlsplit(database).path).geturl()


def leads_to(url: str, *, is_standby: bool) -> bool:
    """Return whether connections by this URL, one after another, are all to such."""
    try:
        for _ in range(6):
            with psycopg.connect(url, connect_timeout=2) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                if row != (is_standby,):
                    return False
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def shop_on(
    cluster: Patroni, project: Path, way: str, **settings: Any
) -> Iterator[Shop]:
    """Serve a project on the cluster.

    The way there is `hosts`, URLs that name all nodes, or `proxy`, HAProxy's.
    """
    server = Server(cluster.url)
    url = server.create_database()
    ways = {
        "hosts": (cluster.url, cluster.replica_url),
        "proxy": (cluster.proxy_url, cluster.proxy_replica_url),
    }
    writes, reads = (of_database(each, url) for each in ways[way])
    # HAProxy takes each node for the right one until it has looked three times.
    until(lambda: leads_to(writes, is_standby=False), "the way to the primary")
    until(lambda: leads_to(reads, is_standby=True), "the way to a standby")
    run(project, *MIGRATE, DATABASE_URL=writes)
    server.execute(SEED, url)
    settings = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": "of this service alone " * 2,
        "DATABASE_REPLICA_URL": reads,
    } | settings
    with serve(project, server, url, writes, **settings) as shop:
        yield Shop(shop.service, url, shop.sql)


@contextmanager
def probes(cluster: Patroni) -> Iterator[tuple[list[float], list[float]]]:
    """Give when some node has accepted a write, and when it did by way of HAProxy."""
    server = Server(cluster.url)
    name = server.create_database()
    server.execute("CREATE TABLE probe (id bigint GENERATED ALWAYS AS IDENTITY)", name)
    nodes = [cluster.url_at(node.address) for node in cluster.nodes]
    with (
        probed(*(of_database(each, name) for each in nodes)) as directly,
        probed(of_database(cluster.proxy_url, name)) as through_proxy,
    ):
        yield directly, through_proxy


# How long a fault lasts, beyond what it takes until there is another primary.
WHILE = 5.0
# Longer than a system may take to give up who does not answer.
UNPLUGGED = 30.0


def killed(cluster: Patroni) -> None:
    """The primary loses its power, and comes back when there is another."""
    old = cluster.primary()
    old.cut_power()
    start_again(old, cluster)


def start_again(old: Node, cluster: Patroni) -> None:
    """Start a primary that is gone, a while after there is another."""
    cluster.primary()
    time.sleep(WHILE)
    old.start()


def killed_in_commit(cluster: Patroni) -> None:
    """The primary dies while all wait for the standby, which has their commits."""
    commits("remote_apply", cluster)
    with standbys_late(cluster):
        time.sleep(2)
        old = cluster.primary()
        old.cut_power()
    start_again(old, cluster)
    until(cluster.is_whole, "nodes that follow")
    commits("on", cluster)


@contextmanager
def standbys_late(cluster: Patroni) -> Iterator[None]:
    """Have the standbys write what they receive, but not show it, as long as it lasts.

    Patroni would end a pause of the replay within a second.
    """
    pids = [pid for node in cluster.standbys() for pid in node.processes("startup")]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def commits(wait: str, cluster: Patroni) -> None:
    """Have commits wait until the standby has written, or shows, what they save."""
    cluster.configure(postgresql={"parameters": {"synchronous_commit": wait}})
    show = "SHOW synchronous_commit"
    until(lambda: Server(cluster.url).execute(show) == [(wait,)], "a setting")


def killed_with_late_standbys(cluster: Patroni) -> None:
    """The primary dies when it has sent nothing to its standbys for a second."""
    old = cluster.primary()
    for pid in old.processes("walsender"):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(1)
    old.cut_power()
    start_again(old, cluster)


def paused(cluster: Patroni) -> None:
    """The primary stands still until there is another, and then goes on."""
    old = cluster.primary()
    others = cluster.standbys()
    pids = old.pause()
    until(lambda: any(n.api("/primary")[0] == 200 for n in others), "a new primary")
    time.sleep(WHILE)
    old.resume(pids)


def unplugged(cluster: Patroni) -> None:
    """The primary is cut off as well: not even the system that it runs on answers."""
    old = cluster.primary()
    others = cluster.standbys()
    ports = [(side, str(port)) for port in old.ports for side in ("--dport", "--sport")]
    with contextlib.ExitStack() as until_plugged:
        for port in ports:
            rule = ["INPUT", *("--protocol", "tcp"), *port, *("--jump", "DROP")]
            iptables("--insert", *rule)
            until_plugged.callback(iptables, "--delete", *rule)
        pids = old.pause()
        until(lambda: any(n.api("/primary")[0] == 200 for n in others), "a new primary")
        time.sleep(UNPLUGGED)
    old.resume(pids)


def iptables(*arguments: str) -> None:
    """Have the system drop what comes to a port, or no longer."""
    command = [program("iptables") or "iptables", "--wait", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def cannot_happen(fault: str) -> str:
    """Return why a fault cannot be made to happen here, or nothing."""
    if fault != "unplugged":
        return ""
    try:
        iptables("--list-rules")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"iptables cannot be used: {error}"
    return ""


def switched_over(cluster: Patroni) -> None:
    """The primary hands over, as planned."""
    cluster.switch_over()


def restarted(cluster: Patroni) -> None:
    """Each node is restarted, the primary last."""
    for node in [*cluster.standbys(), cluster.primary()]:
        node.restart()
        until(cluster.is_whole, "nodes that follow")


def without_store(cluster: Patroni) -> None:
    """The consensus store is away for a while."""
    cluster.etcd.stop()
    time.sleep(20)
    cluster.etcd.serve()


def without_store_in_failsafe_mode(cluster: Patroni) -> None:
    """The consensus store is away, and the nodes agree without it."""
    cluster.configure(failsafe_mode=True)
    time.sleep(3)
    try:
        without_store(cluster)
    finally:
        until(cluster.is_whole, "nodes that follow")
        cluster.configure(failsafe_mode=False)


def late(cluster: Patroni) -> None:
    """The standbys show what was."""
    with standbys_late(cluster):
        time.sleep(2 * WHILE)


FAULTS: dict[str, Callable[[Patroni], None]] = {
    "switchover": switched_over,
    "killed": killed,
    "killed in COMMIT": killed_in_commit,
    "paused": paused,
    "unplugged": unplugged,
    "rolling restart": restarted,
    "store away": without_store,
    "store away (failsafe)": without_store_in_failsafe_mode,
    "standbys late": late,
}
# With these, an asynchronous standby has not all that was acknowledged.
LOSSES: dict[str, Callable[[Patroni], None]] = {
    "killed (asynchronous)": killed_with_late_standbys,
    "paused (asynchronous)": paused,
}


def writes(load: Load) -> list[Attempt]:
    """Return all attempts to write so far."""
    return [each for each in load.attempts if each.kind in WRITES]


def done(attempts: Iterable[Attempt]) -> list[float]:
    """Return when these have succeeded."""
    return [each.end for each in attempts if each.succeeded]


def longest_gap(moments: list[float], begin: float, end: float) -> tuple[float, float]:
    """Return the longest time without one of these, and since when it was.

    It has begun before the end, and ended after the beginning.
    """
    before = [moment for moment in sorted(moments) if moment < end]
    pairs = itertools.pairwise([*before, end])
    gaps = [(late - early, early) for early, late in pairs if late > begin]
    return max(gaps, default=(end - begin, begin))


@dataclass
class Outcome:
    """What a fault has done to a service, seen from outside."""

    fault: str
    variant: str
    way: str
    writes: int = 0
    acknowledged: int = 0
    lost: int = 0
    doubled: int = 0
    refused_and_stored: int = 0
    unknown: int = 0
    unknown_stored: int = 0
    wrong_totals: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    without_write: float = 0
    of_patroni: float = 0
    of_proxy: float = 0
    """The longest time without a write: the service's, and without it."""
    longest_answer: float = 0
    reads: int = 0
    reads_failed: int = 0
    without_read: float = 0
    reads_meanwhile: int = 0
    """How many reads have succeeded when no write did."""
    exports: int = 0
    exports_cut: int = 0
    fulfilments: int = 0
    fulfilments_left: int = 0
    restarted: bool = False


def assess(outcome: Outcome, load: Load, shop: Shop) -> None:
    """Compare what clients were told with what the cluster has stored."""
    assert_tells_nothing(load.refusals)
    keyed = [a for a in load.attempts if a.kind in {"create", "order", "transfer"}]
    stored = Counter((kind, key) for kind, key in shop.sql(STORED))
    acknowledged = {(a.kind, a.key) for a in keyed if a.status == 201}
    # Who gets nothing, or 502 from a proxy that got nothing, does not know either.
    unknown = {
        (a.kind, a.key) for a in keyed if a.type == UNKNOWN or a.status in {0, 502}
    }
    outcome.writes = len(keyed)
    outcome.acknowledged = len(acknowledged)
    outcome.lost = len(acknowledged - stored.keys())
    outcome.doubled = sum(1 for count in stored.values() if count > 1)
    outcome.refused_and_stored = len(stored.keys() - acknowledged - unknown)
    outcome.unknown = len(unknown)
    outcome.unknown_stored = len(unknown & stored.keys())
    wrong = [*shop.sql(WRONG_STOCKS), *shop.sql(WRONG_BALANCES)]
    outcome.wrong_totals = len(wrong)
    outcome.refused = dict(
        Counter(f"{a.status} {a.type}" for a in keyed if a.status != 201)
    )
    outcome.odd = [text for text, _ in Counter(load.odd).most_common(10)]
    outcome.longest_answer = max(a.end - a.begin for a in load.attempts)
    reads = [a for a in load.attempts if a.kind == "read"]
    outcome.reads = len(reads)
    outcome.reads_failed = sum(1 for a in reads if a.status != 200)
    exports = [a for a in load.attempts if a.kind == "export"]
    outcome.exports = len(exports)
    outcome.exports_cut = sum(1 for a in exports if a.status != 200)
    accepted = {a.key for a in load.attempts if a.status == 202}
    left = {
        str(id) for (id,) in shop.sql("SELECT id FROM orders WHERE status = 'placed'")
    }
    outcome.fulfilments = len(accepted)
    outcome.fulfilments_left = len(accepted & left)
    outcome.restarted = shop.service.log.count("startup complete") != 1


def attempt(
    cluster: Patroni, fault: str, project: Path, variant: str, way: str, **settings: Any
) -> Outcome:
    """Let a fault happen to a service under load; return what was seen."""
    cluster.configure(synchronous_mode=fault not in LOSSES)
    until(cluster.is_whole, "nodes that follow")
    outcome = Outcome(fault, variant, way)
    with shop_on(cluster, project, way, **settings) as shop:
        with (
            probes(cluster) as (directly, through_proxy),
            loaded(shop, cluster.catch_up) as load,
        ):
            until(lambda: len(load.attempts) >= 500, "a load")
            begin = time.monotonic()
            (FAULTS | LOSSES)[fault](cluster)
            until(cluster.is_whole, "nodes that follow")
            whole = time.monotonic()
            until(
                lambda: sum(a.begin > whole and a.succeeded for a in writes(load)) > 64,
                "writes after the fault",
            )
            end = time.monotonic()
        outcome.without_write, since = longest_gap(done(writes(load)), begin, end)
        outcome.of_patroni, _ = longest_gap(directly, begin, end)
        outcome.of_proxy, _ = longest_gap(through_proxy, begin, end)
        reads = done(a for a in load.attempts if a.kind == "read")
        outcome.without_read, _ = longest_gap(reads, begin, end)
        outcome.reads_meanwhile = sum(
            since < each < since + outcome.without_write for each in reads
        )
        assess(outcome, load, shop)
        if outcome.odd:
            print(shop.service.log[-100_000:])
    return outcome
