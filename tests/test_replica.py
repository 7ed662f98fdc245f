"""Services with a second URL: of a replica to read from, or of an account to migrate.

The replica is a real one, which follows a primary of our own.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
import pytest
from httpx2 import Client, Response

from tests.follow import CHECKS, follow
from tests.postgres import Cluster, Replica, Server, free_port
from tests.proxy import Proxy
from tests.service import MIGRATE, Service, run, wait_until
from tests.shop import (
    POOL_SIZE,
    create,
    export,
    new_product,
    read,
    register,
    sign_in,
    token_of_somebody_new,
    transfer,
)
from tests.template import DEFAULT, EXTREMES, ROOT, SLUG, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

PRODUCT = (
    "INSERT INTO products (sku, name, price, stock) VALUES ('first', 'First', 1, 1)"
)
READS = ["/products/1", "/products", "/users/me", "/health/database"]
READS += ["/products/export"]  # Last, as it gives its connection back last.
READ_ONLY = "25006"
FALLS_BACK = "fell back to"
TERMINATE = (
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
    "WHERE pid <> pg_backend_pid() AND datname = current_database()"
)
# The service's own, and when they were last used.
CONNECTIONS = f"""
SELECT pid, query_start FROM pg_stat_activity
WHERE datname = current_database() AND application_name = '{SLUG}' ORDER BY pid
"""


@dataclass(frozen=True)
class Shop:
    """A service, and both of its databases."""

    service: Service
    url: str
    primary: Callable[[str], list[Any]]
    replica: Callable[[str], list[Any]]
    catch_up: Callable[[], None]

    def client(self) -> Client:
        """Return the client of somebody new; the replica has to run."""
        email = f"{uuid4()}@example.com"
        stranger = self.service.client()
        assert register(stranger, email).status_code == 201
        self.catch_up()
        token = sign_in(stranger, email).json()["access_token"]
        return self.service.client(token)


OpenShop = Callable[..., AbstractContextManager[Shop]]


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    """A replica, and its primary; who stops it starts it again."""
    with Cluster() as primary, primary.replica() as replica:
        yield replica


@pytest.fixture(scope="module")
def stocked(bake: Bakery, replica: Replica) -> str:
    """The URL of a database to copy on the primary: migrated, with one product."""
    primary = Server(replica.primary.url)
    url = primary.create_database()
    run(bake(**DEFAULT, example=True), *MIGRATE, DATABASE_URL=url)
    primary.execute(PRODUCT, url)
    return url


def or_primary(url: str, first: str) -> str:
    """Return a URL that prefers the host `first` to the one of `url`, the primary."""
    account, _, primary = urlsplit(url).netloc.rpartition("@")
    hosts = urlsplit(url)._replace(netloc=f"{account}@{first},{primary}")
    return f"{hosts.geturl()}?target_session_attrs=prefer-standby"


def address_of(cluster: Cluster) -> str:
    """Return host and port of a server."""
    return urlsplit(cluster.url).netloc.rpartition("@")[2]


@contextmanager
def opened(
    project: Path,
    replica: Replica,
    stocked: str,
    first: str | None = None,
    **settings: Any,
) -> Iterator[Shop]:
    """Serve a project that has a database of its own, and reads from the copy of it.

    With `first`, the host and port of somebody else, it prefers to read from there, and
    falls back to the primary.
    """
    primary = Server(replica.primary.url)
    url = primary.create_database(template=stocked)
    copy = replica.counterpart(url)
    reads = copy if first is None else or_primary(url, first)
    urls = {"DATABASE_URL": url, "DATABASE_REPLICA_URL": reads}
    with Service(project, **({"ENVIRONMENT": "test"} | urls | settings)) as service:
        yield Shop(
            service,
            url,
            partial(primary.execute, url=url),
            partial(primary.execute, url=copy),
            replica.catch_up,
        )


@pytest.fixture(params=EXTREMES, ids=name_of)
def project(request: pytest.FixtureRequest, bake: Bakery) -> Path:
    """An asynchronous and a synchronous variant."""
    return bake(**request.param, example=True)


@pytest.fixture
def open_shop(project: Path, replica: Replica, stocked: str) -> OpenShop:
    """Serve a variant, with other settings if they are given."""
    return partial(opened, project, replica, stocked)


@contextmanager
def stopped(cluster: Cluster) -> Iterator[None]:
    """Have the server stopped as long as it lasts."""
    cluster.stop()
    try:
        yield
    finally:
        cluster.start()


@contextmanager
def replay_paused(replica: Replica) -> Iterator[None]:
    """Let the replica stay as it is as long as it lasts, and then catch up."""
    server = Server(replica.url)
    replica.catch_up()
    server.execute("SELECT pg_wal_replay_pause()")
    paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
    try:
        wait_until(lambda: server.execute(paused) == [(True,)])
        yield
    finally:
        server.execute("SELECT pg_wal_replay_resume()")
    replica.catch_up()


@contextmanager
def silent_server() -> Iterator[str]:
    """Give the host and port of somebody who lets all connect, and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def statuses(client: Client, paths: Iterable[str] = READS) -> set[int]:
    """Return the statuses of what is got from these paths."""
    return {client.get(path).status_code for path in paths}


def fallbacks_in(shop: Shop) -> int:
    """Return how many connections have gone to the primary instead."""
    return shop.service.log.count(FALLS_BACK)


def is_read_from(sql: Callable[[str], list[Any]], client: Client) -> bool:
    """Return whether the server is the one that answers a read, which succeeds."""
    before = sql(CONNECTIONS)
    assert read(client).status_code == 200
    return sql(CONNECTIONS) != before


def test_what_reads_asks_the_replica_only_and_what_writes_the_primary(
    open_shop: OpenShop,
) -> None:
    with open_shop() as shop:
        client = shop.client()
        friend = f"{uuid4()}@example.com"
        writes: list[Callable[[], Response]] = [
            partial(register, client, friend),
            partial(create, client),
            partial(client.post, "/products/bulk", json=[new_product()]),
            partial(client.patch, "/products/1", json={"price": 2}),
            partial(transfer, client, friend),
        ]
        for write in writes:
            primary, replica = shop.primary(CONNECTIONS), shop.replica(CONNECTIONS)
            assert write().is_success
            assert shop.primary(CONNECTIONS) != primary
            assert shop.replica(CONNECTIONS) == replica
        shop.catch_up()
        for ask in [
            partial(sign_in, client, friend),
            *(partial(client.get, path) for path in READS),
        ]:
            primary, replica = shop.primary(CONNECTIONS), shop.replica(CONNECTIONS)
            assert ask().status_code == 200
            assert shop.primary(CONNECTIONS) == primary, ask
            assert shop.replica(CONNECTIONS) != replica, ask


def seen(client: Client, product: int) -> dict[str, object]:
    """Return what each way to read says of a product, and of who asks."""
    listed = [each["id"] for each in client.get("/products").json()["items"]]
    exported = [json.loads(line)["id"] for line in export(client).text.splitlines()]
    return {
        "shown": client.get(f"/products/{product}").status_code,
        "listed": product in listed,
        "exported": product in exported,
        "name": client.get("/users/me").json()["full_name"],
    }


def test_a_late_replica_shows_what_was_until_it_has_caught_up(
    open_shop: OpenShop, replica: Replica
) -> None:
    with open_shop() as shop:
        client = shop.client()
        with replay_paused(replica):
            created = create(client)
            assert created.status_code == 201
            product = created.json()["id"]
            shop.primary("UPDATE users SET full_name = 'Countess'")
            late = {"shown": 404, "listed": False, "exported": False, "name": "Ada"}
            assert seen(client, product) == late
        now = {"shown": 200, "listed": True, "exported": True, "name": "Countess"}
        assert seen(client, product) == now


@pytest.mark.costly
def test_what_was_just_written_is_read_at_the_primary_as_the_page_says(
    variant: Answers,
    bake: Bakery,
    replica: Replica,
    tools: dict[str, Any],
    tmp_path: Path,
) -> None:
    project = shutil.copytree(bake(**variant, example=False), tmp_path / "project")
    for page in ("docs/add-a-feature.md", "docs/sessions/reading.md"):
        follow(page, project, omitting=CHECKS, **tools)
    url = Server(replica.primary.url).create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    replica.catch_up()
    urls: dict[str, Any] = {"DATABASE_URL": url}
    urls["DATABASE_REPLICA_URL"] = replica.counterpart(url)
    with Service(project, ENVIRONMENT="test", **urls) as service:
        client = service.client()
        with replay_paused(replica):
            created = client.post("/categories", json={"name": "Fruit"})
            assert created.status_code == 201
            path = f"/categories/{created.json()['id']}"
            assert client.get(path).status_code == 404
            assert client.get(f"{path}/current").json() == created.json()
        assert client.get(path).json() == created.json()


ASK_FIRST = """
import sys
import anyio
from sqlalchemy import text
from app.config import load_settings
from app.db.database import Database
from app.run import run_read

async def read(session):
    asked = await (await session.connection()).execute(text(sys.argv[1]))
    return asked.scalar(), await session.scalar(text("SELECT count(*) FROM products"))

print(*anyio.run(run_read, Database(load_settings()), read))
"""


def test_a_replica_says_whether_it_has_a_write_as_the_page_says(
    project: Path, replica: Replica, stocked: str
) -> None:
    page = (ROOT / "docs" / "pages" / "past-one-machine.md").read_text("utf-8")
    (block,) = re.findall(r"^```sql\n(.+?)^```$", page, re.M | re.S)
    position, question = block.splitlines()
    is_sync = (project / "app" / "concurrency.py").exists()
    script = re.sub(r"\b(async|await) ", "", ASK_FIRST) if is_sync else ASK_FIRST
    primary = Server(replica.primary.url)
    url = primary.create_database(template=stocked)

    def ask(reads: str) -> str:
        asked = question.replace("0/3000060", written)
        urls = {"DATABASE_URL": url, "DATABASE_REPLICA_URL": reads}
        return run(project, sys.executable, "-c", script, asked, **urls).strip()

    with replay_paused(replica):
        primary.execute(PRODUCT.replace("first", "second"), url)
        [(written,)] = primary.execute(position)
        assert ask(replica.counterpart(url)) == "False 1"
        assert ask(url) == "True 2"
    # The position may lie behind the head of a page, which comes with what is next.
    primary.execute("SELECT pg_logical_emit_message(true, '', '')")
    replica.catch_up()
    assert ask(replica.counterpart(url)) == "True 2"


def test_a_transfer_reads_what_it_changes_where_it_is_changed(
    open_shop: OpenShop, replica: Replica
) -> None:
    with open_shop() as shop:
        client = shop.client()
        with replay_paused(replica):
            friend = f"{uuid4()}@example.com"
            register(client, friend)
            answers = [transfer(client, friend, 4_000) for _ in range(3)]
            assert [each.status_code for each in answers] == [201, 201, 409]
            balances = [each.json().get("balance") for each in answers]
            assert balances == [6_000, 2_000, None]
            assert client.get("/users/me").json()["balance"] == 10_000
        assert client.get("/users/me").json()["balance"] == 2_000


def test_without_its_replica_a_service_writes_and_is_ready_but_does_not_read(
    open_shop: OpenShop, replica: Replica
) -> None:
    with open_shop() as shop:
        client = shop.client()
        assert statuses(client) == {200}
        with stopped(replica):
            for path in READS:
                refused = client.get(path)
                assert refused.status_code == 503, path
                assert refused.headers["Content-Type"] == "application/problem+json"
                assert refused.json()["type"].endswith("database-unavailable")
                assert int(refused.headers["Retry-After"]) > 0
            created = create(client)
            assert created.status_code == 201
            assert statuses(client, ["/health/ready", "/health/live"]) == {200}
        replica.catch_up()
        assert statuses(client, [*READS, f"/products/{created.json()['id']}"]) == {200}
        assert fallbacks_in(shop) == 0


def test_reads_fall_back_to_the_primary_when_the_replica_is_down_at_first(
    open_shop: OpenShop, replica: Replica
) -> None:
    with stopped(replica), open_shop(first=address_of(replica)) as shop:
        client = shop.service.client(token_of_somebody_new(shop.service.client()))
        assert statuses(client) == {200}
        assert client.get(f"/products/{create(client).json()['id']}").is_success
        assert is_read_from(shop.primary, client)
        # One connection was enough for all, and asked for the replica once.
        assert fallbacks_in(shop) == 1


def test_reads_fall_back_to_the_primary_when_the_replica_ends_meanwhile(
    open_shop: OpenShop, replica: Replica
) -> None:
    first = address_of(replica)
    with open_shop(first=first) as shop, ThreadPoolExecutor() as threads:
        client = shop.client()
        assert statuses(client) == {200}
        assert is_read_from(shop.replica, client)
        assert fallbacks_in(shop) == 0
        with locked_on_both(shop):
            reading = threads.submit(read, client)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            wait_until(lambda: shop.replica(waiting) == [(1,)])
            replica.stop(signal.SIGQUIT)
        with stopped(replica):
            lost = reading.result()
            assert lost.status_code == 503
            assert lost.json()["type"].endswith("database-unavailable")
            assert statuses(client) == {200}
            assert is_read_from(shop.primary, client)
            assert client.get(f"/products/{create(client).json()['id']}").is_success
            assert fallbacks_in(shop) == 1


@contextmanager
def locked_on_both(shop: Shop) -> Iterator[None]:
    """Keep all from the products, on the replica too; the lock travels with the WAL."""
    lock = "SELECT 1 FROM pg_locks WHERE relation = 'products'::regclass AND granted"
    with psycopg.connect(shop.url) as connection:
        connection.execute("LOCK TABLE products")
        # What has begun travels when something else is committed.
        shop.primary("SELECT pg_logical_emit_message(true, '', '')")
        wait_until(lambda: shop.replica(lock) != [])
        yield


@contextmanager
def burst_of_reads(
    open_shop: OpenShop, timeout: int, **settings: Any
) -> Iterator[tuple[Shop, Client, list[Response]]]:
    """Read twenty times at once in a shop whose replica is silent."""
    with (
        open_shop(DATABASE_POOL_TIMEOUT=timeout, **settings) as shop,
        ThreadPoolExecutor(20) as threads,
    ):
        client = shop.service.client()
        yield shop, client, list(threads.map(read, [client] * 20))


def test_reads_fall_back_to_the_primary_when_the_replica_is_silent(
    open_shop: OpenShop,
) -> None:
    timeout = 4  # Less than connecting may take: the replica gets a part of it.
    with (
        silent_server() as address,
        burst_of_reads(open_shop, timeout, first=address) as (shop, client, burst),
    ):
        assert Counter(each.status_code for each in burst) == {200: 20}
        assert max(each.elapsed.total_seconds() for each in burst) < timeout
        assert 1 <= fallbacks_in(shop) <= POOL_SIZE
        assert is_read_from(shop.primary, client)


def test_a_silent_replica_alone_is_given_up_in_time(open_shop: OpenShop) -> None:
    timeout = 2
    with silent_server() as address:
        nobody = {"DATABASE_REPLICA_URL": f"postgresql://nobody:nothing@{address}/none"}
        with burst_of_reads(open_shop, timeout, **nobody) as (_, client, burst):
            assert Counter(each.status_code for each in burst) == {503: 20}
            # Who gets a place at last has two seconds to connect, as libpq has it.
            longest = max(each.elapsed.total_seconds() for each in burst)
            assert longest < timeout + 2 + 2
            assert statuses(client, ["/health/ready", "/health/live"]) == {200}


def test_a_replica_that_is_back_is_read_again(
    open_shop: OpenShop, replica: Replica
) -> None:
    first = address_of(replica)
    with open_shop(first=first, DATABASE_POOL_RECYCLE=0.5) as shop:
        client = shop.client()
        with stopped(replica):
            assert is_read_from(shop.primary, client)
            # As long as the replica is down, each new connection falls back.
            wait_until(lambda: read(client).is_success and fallbacks_in(shop) >= 3)
        wait_until(lambda: is_read_from(shop.replica, client))
        for _ in range(3):
            assert not is_read_from(shop.primary, client)


WRITE = """
import anyio
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from app.config import load_settings
from app.db.database import Database
from app.db.errors import sqlstate
from app.run import run_read

def write(session):
    return session.scalar(text("UPDATE products SET price = 3 RETURNING 3"))

try:
    anyio.run(run_read, Database(load_settings()), write)
except DBAPIError as error:
    print(sqlstate(error))
"""


def test_a_primary_that_is_read_instead_of_the_replica_refuses_to_write(
    project: Path, stocked: str
) -> None:
    reads = or_primary(stocked, f"127.0.0.1:{free_port()}")
    urls = {"DATABASE_URL": stocked, "DATABASE_REPLICA_URL": reads}
    assert run(project, sys.executable, "-c", WRITE, **urls).strip() == READ_ONLY
    assert Server(stocked).execute("SELECT price FROM products") == [(1,)]


def test_the_primary_is_found_by_its_role(
    project: Path, replica: Replica, stocked: str
) -> None:
    account, _, primary = urlsplit(stocked).netloc.rpartition("@")
    hosts = f"{account}@{address_of(replica)},{primary}"
    url = urlsplit(stocked)._replace(netloc=hosts).geturl()
    url += "?target_session_attrs=read-write"
    replica.catch_up()
    run(project, *MIGRATE, DATABASE_URL=url)
    with Service(project, ENVIRONMENT="test", DATABASE_URL=url) as service:
        client = service.client(token_of_somebody_new(service.client()))
        created = create(client)
        assert created.status_code == 201
        assert client.get(f"/products/{created.json()['id']}").status_code == 200


def test_writes_go_on_when_a_proxy_has_led_to_a_standby_meanwhile(
    project: Path, replica: Replica, stocked: str
) -> None:
    primary = Server(replica.primary.url)
    url = primary.create_database(template=stocked)
    standby = replica.counterpart(url)
    settings: dict[str, Any] = {"ENVIRONMENT": "test", "DATABASE_RETRY_DEADLINE": 0.2}
    with (
        Proxy(url) as proxy,
        Service(project, DATABASE_URL=proxy.url, **settings) as service,
    ):
        client = service.client(token_of_somebody_new(service.client()))
        friend = f"{uuid4()}@example.com"
        assert register(client, friend).status_code == 201
        assert create(client).status_code == 201
        count = "SELECT count(*) FROM products"
        ((before,),) = primary.execute(count, url)
        replica.catch_up()
        proxy.lead_to(standby)
        primary.execute(TERMINATE, url)
        # A transfer is serializable, which a standby refuses before any write.
        writes = [partial(create, client), partial(transfer, client, friend)]
        for write in writes * 2:
            refused = write()
            assert refused.status_code == 503
            assert refused.json()["type"].endswith("database-unavailable")
            assert int(refused.headers["Retry-After"]) > 0
        proxy.lead_to(url)
        assert [write().status_code for write in writes] == [201, 201]
        assert primary.execute(count, url) == [(before + 1,)]


@pytest.fixture
def owned(replica: Replica) -> str:
    """The URL of an empty database in which its owner alone may create tables."""
    primary = Server(replica.primary.url)
    url = primary.create_database()
    primary.execute("REVOKE CREATE ON SCHEMA public FROM public", url)
    return url


@pytest.fixture
def guest(replica: Replica, owned: str) -> str:
    """The URL of that database for somebody who may read and write its tables only."""
    primary, name = Server(replica.primary.url), f"guest_{uuid4().hex}"
    primary.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'welcome'")
    for right in ("SELECT, INSERT, UPDATE, DELETE ON TABLES", "USAGE ON SEQUENCES"):
        primary.execute(f"ALTER DEFAULT PRIVILEGES GRANT {right} TO {name}", owned)
    account, place = f"{name}:welcome", urlsplit(owned).netloc.rpartition("@")[2]
    return urlsplit(owned)._replace(netloc=f"{account}@{place}").geturl()


def tables_of(url: str) -> set[str]:
    """Return the names of a database's tables."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    return {name for (name,) in Server(url).execute(query)}


def test_migrations_go_by_their_own_url_and_the_service_by_the_other(
    project: Path, owned: str, guest: str
) -> None:
    with pytest.raises(AssertionError, match="permission denied for schema public"):
        run(project, *MIGRATE, DATABASE_URL=guest)
    assert tables_of(owned) == set()
    run(project, *MIGRATE, DATABASE_URL=guest, DATABASE_MIGRATION_URL=owned)
    assert {"alembic_version", "products", "users"} <= tables_of(owned)
    settings: dict[str, Any] = {"ENVIRONMENT": "test"}
    settings |= {"DATABASE_URL": guest, "DATABASE_MIGRATION_URL": owned}
    with Service(project, **settings) as service:
        client = service.client(token_of_somebody_new(service.client()))
        assert create(client).status_code == 201
        assert statuses(client) == {200}


def test_migrations_need_nobody_at_the_other_url(project: Path, owned: str) -> None:
    # As it is with a pooler that is down, or knows no such database.
    nobody = f"postgresql://nobody:nothing@127.0.0.1:{free_port()}/nowhere"
    pooled = {"DATABASE_URL": nobody, "DATABASE_POOLER": "transaction"}
    with pytest.raises(AssertionError, match="cannot connect"):
        run(project, *MIGRATE, **pooled)
    assert tables_of(owned) == set()
    run(project, *MIGRATE, DATABASE_MIGRATION_URL=owned, **pooled)
    assert {"alembic_version", "products", "users"} <= tables_of(owned)
