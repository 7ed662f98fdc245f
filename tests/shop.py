"""The example's shop as a service: what clients ask of it, and what the tests look at.

Tests that attack a shop serve it on a copy of one database, in which commits can be
told to fail.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from httpx2 import Client, Response

from tests.evidence import note
from tests.postgres import Server
from tests.proxy import Proxy
from tests.service import MIGRATE, PATIENCE, Service, run, wait_until
from tests.template import DEFAULT, SLUG, Bakery

PASSWORD = "correct horse"
ADA = "ada@example.com"
POOL_SIZE = 5
# What is slow on a busy machine is not wrong.
PATIENTLY = {"DATABASE_POOL_TIMEOUT": PATIENCE, "DATABASE_RETRY_DEADLINE": PATIENCE}
# All workers take the tokens that one of them has given.
WORKERS = {"UVICORN_WORKERS": 2, "SECRET_KEY": "of both workers " * 2}

# A COMMIT that changes products takes its time. One that changes products, orders,
# transfers or users fails with the state that is set for them. Attempts to transfer are
# counted: a sequence keeps what a transaction that failed has taken of it.
SLOW_OR_FAILING_COMMITS = """
CREATE TABLE fate (relation name, sqlstate text);
CREATE FUNCTION meet_fate() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    code text := (SELECT sqlstate FROM fate WHERE relation = TG_TABLE_NAME);
BEGIN
    IF code IS NOT NULL THEN
        RAISE EXCEPTION 'this was not to be' USING ERRCODE = code;
    END IF;
    PERFORM pg_sleep(TG_ARGV[0]::float);
    RETURN NULL;
END
$$;
CREATE SEQUENCE attempts;
CREATE FUNCTION count_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('attempts');
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER fate AFTER INSERT OR UPDATE OR DELETE ON products
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0.02);
CREATE CONSTRAINT TRIGGER fate AFTER INSERT OR UPDATE OR DELETE ON orders
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
CREATE CONSTRAINT TRIGGER attempts AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION count_attempt();
CREATE CONSTRAINT TRIGGER fate AFTER INSERT ON transfers
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
CREATE CONSTRAINT TRIGGER fate AFTER INSERT ON users
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION meet_fate(0);
INSERT INTO products (sku, name, price, stock)
    VALUES ('first', 'First', 100, 1), ('plenty', 'Plenty', 100, 1000000);
"""
PLENTY = 2
# What is left of plenty, and what is ordered of it, together.
BOOKS = f"""
SELECT stock + (SELECT sum(quantity) FROM order_items WHERE product_id = products.id)
FROM products WHERE id = {PLENTY}
"""
# Users whose balance is not what they began with and were given, less what they gave.
WRONG_BALANCES = """
SELECT email FROM users WHERE balance <> 10000
    + (SELECT coalesce(sum(amount), 0) FROM transfers WHERE recipient_id = users.id)
    - (SELECT coalesce(sum(amount), 0) FROM transfers WHERE sender_id = users.id)
"""
# So many that no buffer between the service and its client takes them all; without
# the trigger, which would sleep for each.
ROWS = 30_000
MANY_PRODUCTS = f"""
SET session_replication_role = replica;
INSERT INTO products (sku, name, price, stock)
SELECT 'many-' || number, repeat('n', 200), 100, 1
FROM generate_series(1, {ROWS}) AS number
"""
# The service's own, by the name that it gives them.
CONNECTIONS = f"""
FROM pg_stat_activity
WHERE datname = current_database() AND application_name = '{SLUG}'
"""
# Connections that a client has lost rather than closed.
ABANDONED = """
SELECT sessions_abandoned FROM pg_stat_database WHERE datname = current_database()
"""
# The type of the problem when nobody can know what has become of a COMMIT.
UNKNOWN = "commit-outcome-unknown"
# What only the database or its driver would say.
TEXTS = (
    *("not to be", "duplicate", "one_of_a_name", "psycopg", "asyncpg", "sqlalchemy"),
    *("insert into", "commit;", "sqlstate", "postgres", "127.0.0.1", "traceback"),
)


def register(client: Client, email: str) -> Response:
    """Register somebody, with the password that all have here."""
    user = {"email": email, "full_name": "Ada", "password": PASSWORD}
    return client.post("/users", json=user)


def join(client: Client) -> Response:
    """Register somebody new."""
    return register(client, f"{uuid4()}@example.com")


def sign_in(client: Client, email: str, password: str = PASSWORD) -> Response:
    """Ask for a token."""
    form = {"username": email, "password": password}
    return client.post("/auth/token", data=form)


def token_of_somebody_new(client: Client) -> str:
    """Return the token of a user whom nobody else knows."""
    email = f"{uuid4()}@example.com"
    registered = register(client, email)
    assert registered.status_code == 201, registered.text
    signed_in = sign_in(client, email)
    assert signed_in.status_code == 200, signed_in.text
    return str(signed_in.json()["access_token"])


def new_product(**fields: Any) -> dict[str, Any]:
    """Return a product that no other has the SKU of, but for these fields."""
    return {"sku": uuid4().hex, "name": "New", "price": 100, "stock": 1} | fields


def read(client: Client) -> Response:
    """Read the product that there always is."""
    return client.get("/products/1")


def create(client: Client, stock: int = 1) -> Response:
    """Create a product."""
    return client.post("/products", json=new_product(stock=stock))


def read_or_create(client: Client, number: int) -> Response:
    """Read for an even number, create for an odd one."""
    return create(client) if number % 2 else read(client)


def export(client: Client) -> Response:
    """Read all products."""
    return client.get("/products/export")


def an_order(*product_ids: int, quantity: int = 1) -> dict[str, Any]:
    """Return an order of products, the same quantity of each."""
    lines = [{"product_id": id, "quantity": quantity} for id in product_ids]
    return {"items": lines}


def order(client: Client, *product_ids: int) -> Response:
    """Order one of each product."""
    return client.post("/orders", json=an_order(*product_ids))


def fulfil(client: Client, id: int) -> Response:
    """Have an order sent."""
    return client.post(f"/orders/{id}/fulfilment")


def transfer(client: Client, email: str, amount: int = 100) -> Response:
    """Give money to another user."""
    gift = {"recipient_email": email, "amount": amount}
    return client.post("/transfers", json=gift)


def sent(
    client: Client, request: str, body: str = "", missing: int = 0
) -> socket.socket:
    """Send a request, or all of it but some bytes; return where its answer comes."""
    address = urlsplit(str(client.base_url))
    head = [f"{request} HTTP/1.1", "Host: localhost", "Content-Type: application/json"]
    head += [f"Authorization: {client.headers['Authorization']}"]
    head += [f"Content-Length: {len(body) + missing}", "", body]
    connection = socket.create_connection((address.hostname, address.port))
    connection.sendall("\r\n".join(head).encode())
    return connection


def received(connection: socket.socket) -> bytes:
    """Return all that comes until the server hangs up."""
    return b"".join(iter(partial(connection.recv, 2**20), b""))


@dataclass(frozen=True)
class Shop:
    """A service, the way that it takes to its database, and the database itself."""

    service: Service
    url: str
    sql: Callable[[str], list[Any]]

    @cached_property
    def token(self) -> str:
        """Whose the clients are; it is made once, since hashing takes its time."""
        return token_of_somebody_new(self.service.client())

    def client(self) -> Client:
        """Return a client that is signed in, with connections of its own."""
        return self.service.client(self.token)

    def connections(self, that: str = "true") -> int:
        """Return how many connections, or how many that are so, PostgreSQL counts."""
        ((count,),) = self.sql(f"SELECT count(*) {CONNECTIONS} AND {that}")
        return int(count)

    def count(self, rows: str) -> int:
        """Return how many rows there are, as in `products WHERE name = 'New'`."""
        ((count,),) = self.sql(f"SELECT count(*) FROM {rows}")
        return int(count)

    def gauges(self) -> dict[str, int]:
        """Return what the service says of its pools."""
        answer = self.service.client().get("/health/database")
        assert answer.status_code == 200, answer.text
        gauges: dict[str, int] = answer.json()
        return gauges


# Takes settings.
OpenShop = Callable[..., AbstractContextManager[Shop]]


def stock(server: Server, bake: Bakery) -> str:
    """Return the URL of a database to copy: migrated, with products and triggers."""
    url = server.create_database()
    run(bake(**DEFAULT, example=True), *MIGRATE, DATABASE_URL=url)
    server.execute(SLOW_OR_FAILING_COMMITS, url)
    return url


@contextmanager
def serve(
    project: Path, server: Server, url: str, way: str = "", **settings: Any
) -> Iterator[Shop]:
    """Serve a project on a database; it may take another way there than we do."""
    settings = {"ENVIRONMENT": "test"} | settings
    with Service(project, DATABASE_URL=way or url, **settings) as service:
        yield Shop(service, way or url, partial(server.execute, url=url))


def opened(
    project: Path, server: Server, stocked: str, **settings: Any
) -> AbstractContextManager[Shop]:
    """Serve a project on a database of its own."""
    url = server.create_database(template=stocked)
    return serve(project, server, url, **settings)


@contextmanager
def opened_through_a_proxy(
    project: Path, server: Server, stocked: str, **settings: Any
) -> Iterator[tuple[Shop, Proxy]]:
    """Serve a project on a database of its own, with a proxy in between."""
    url = server.create_database(template=stocked)
    with (
        Proxy(url) as proxy,
        serve(project, server, url, proxy.url, **settings) as shop,
    ):
        yield shop, proxy


@dataclass(frozen=True)
class Somebody:
    """A user of a shop, signed in."""

    email: str
    client: Client


def somebody(shop: Shop) -> Somebody:
    """Return somebody new, whose balance is 10,000."""
    email = f"{uuid4()}@example.com"
    stranger = shop.service.client()
    assert register(stranger, email).status_code == 201
    token = sign_in(stranger, email).json()["access_token"]
    return Somebody(email, shop.service.client(token))


def shopping(end: float, users: list[Somebody], number: int) -> list[Response]:
    """Do what users do until it ends; return the answers."""
    random = Random(number)
    client, placed = users[number % len(users)].client, 1
    answers = []
    while time.monotonic() < end:
        match random.randrange(20):
            case 0:
                answer = export(client)
            case 1 | 2 | 3:
                answer = create(client)
            case 4 | 5 | 6:
                answer = order(client, PLENTY)
                placed = answer.json().get("id", placed)
            case 7 | 8 | 9:
                answer = fulfil(client, placed)
            case 10 | 11 | 12:
                others = [each for each in users if each.client is not client]
                answer = transfer(client, random.choice(others).email, 4_000)
            case _:
                answer = read(client)
        answers.append(answer)
    return answers


@contextmanager
def locked(shop: Shop) -> Iterator[None]:
    """Keep all requests from the products as long as it lasts."""
    with psycopg.connect(shop.url) as connection:
        connection.execute("LOCK TABLE products")
        yield


def waiting_for_the_lock(shop: Shop) -> int:
    """Return how many connections wait until it is unlocked."""
    return shop.connections("wait_event_type = 'Lock'")


@contextmanager
def stalled_stream(shop: Shop) -> Iterator[socket.socket]:
    """Give the connection of a client that has read a little of the export only."""
    with sent(shop.client(), "GET /products/export") as connection:
        connection.settimeout(PATIENCE)
        begin = b""
        while begin.count(b"\n{") < 10:
            begin += connection.recv(1_000)
        assert begin.startswith(b"HTTP/1.1 200 ")
        yield connection


def assert_no_stream_is_left(shop: Shop) -> None:
    """Check that the streams' connections are back in the pool, or soon are."""
    wait_until(lambda: shop.gauges()["checked_out"] == 1, patience=10)
    assert shop.connections("state LIKE 'idle in transaction%'") == 0


def assert_is_whole(shop: Shop) -> None:
    """Check that nothing is kept, and that everything works."""
    client = shop.client()
    answers = [read_or_create(client, number) for number in range(20)]
    assert Counter(answer.status_code for answer in answers) == {200: 10, 201: 10}
    gauges = shop.gauges()
    assert gauges["waiting"] == 0
    # One of them is the one that answers.
    leaked = gauges["checked_out"] - 1
    leaked += shop.connections("state LIKE 'idle in transaction%'")
    note(leaked=leaked)
    assert leaked == 0
    assert 0 < shop.connections() <= 2 * POOL_SIZE + 1


def assert_tells_nothing(answers: list[Response]) -> None:
    """Check that each is a problem, in our own words."""
    for answer in answers:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert [text for text in TEXTS if text in answer.text.lower()] == []
