"""Peer (c), synchronous: the shop's four busiest endpoints by FastAPI and psycopg.

Each request has SQL of its own, in as few round trips as one takes care to need.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, Self

import jwt
from fastapi import Depends, FastAPI, HTTPException, Path, Query
from fastapi.security import OAuth2PasswordBearer
from psycopg import Connection
from psycopg.errors import UniqueViolation
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StringConstraints,
    model_validator,
)

# The database.

pool = ConnectionPool[Connection[dict[str, Any]]](
    os.environ["DATABASE_URL"],
    min_size=15,
    max_size=15,
    kwargs={"autocommit": True, "row_factory": dict_row},
    open=False,
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Connect, and disconnect at the end."""
    with pool:
        yield


# What clients send and get.

MAX_ID = 2**63 - 1


def printable(text: str) -> str:
    """Return a text of printable characters only."""
    if not text.isprintable():
        raise ValueError("must have printable characters only")
    return text


def distinct(names: list[str]) -> list[str]:
    """Return each name once."""
    return list(dict.fromkeys(names))


Text = Annotated[str, StringConstraints(pattern=r"^[^\x00]*$")]
Sku = Annotated[Text, Field(min_length=1, max_length=64), AfterValidator(printable)]
TagName = Annotated[Text, Field(min_length=1, max_length=50), AfterValidator(printable)]
Amount = Annotated[StrictInt, Field(ge=0, le=10**12)]
Id = Annotated[int, Path(ge=1, le=MAX_ID)]


class ProductCreate(BaseModel):
    """A new product."""

    model_config = ConfigDict(extra="forbid")

    sku: Sku
    name: Annotated[Text, Field(min_length=1, max_length=200)]
    price: Amount
    stock: Amount
    tags: Annotated[list[TagName], Field(max_length=10), AfterValidator(distinct)] = (
        Field(default_factory=list)
    )


class ProductPublic(BaseModel):
    """A product as everybody sees it."""

    id: int
    sku: str
    name: str
    price: int
    stock: int
    tags: list[str]


class ProductListed(ProductPublic):
    """A product in a list."""

    ordered: bool | None = Field(
        default=None, exclude_if=lambda ordered: ordered is None
    )


class ProductQuery(BaseModel):
    """Which products to list."""

    limit: int = Field(default=50, ge=1, le=100)
    offset: int = Field(default=0, ge=0, le=MAX_ID)
    search: Text | None = Field(default=None, max_length=200)
    min_price: int | None = Field(default=None, ge=0, le=MAX_ID)
    max_price: int | None = Field(default=None, ge=0, le=MAX_ID)
    in_stock: bool | None = None
    tag: Text | None = Field(default=None, max_length=50)

    @model_validator(mode="after")
    def check_prices(self) -> Self:
        """Refuse a range that nothing can be in."""
        if (
            self.min_price is not None
            and self.max_price is not None
            and self.min_price > self.max_price
        ):
            raise ValueError("min_price must not exceed max_price")
        return self


class ProductPage(BaseModel):
    """A part of the list."""

    items: list[ProductListed]
    limit: int
    offset: int
    has_more: bool


Reason = Literal["shortage", "unknown"]


class Line(BaseModel):
    """How much of a product is wanted."""

    model_config = ConfigDict(extra="forbid")

    product_id: Annotated[StrictInt, Field(ge=1, le=MAX_ID)]
    quantity: Annotated[StrictInt, Field(ge=1, le=10_000)]


def each_once(lines: list[Line]) -> list[Line]:
    """Return lines of different products."""
    if len({line.product_id for line in lines}) < len(lines):
        raise ValueError("must name each product once")
    return lines


class OrderCreate(BaseModel):
    """What is wanted."""

    model_config = ConfigDict(extra="forbid")

    items: Annotated[
        list[Line], Field(min_length=1, max_length=100), AfterValidator(each_once)
    ]
    on_shortage: Literal["reject", "skip"] = "reject"


class OrderItemPublic(BaseModel):
    """A line of an order."""

    product_id: int
    quantity: int
    price: int


class Skipped(BaseModel):
    """A line that was not available."""

    product_id: int
    quantity: int
    reason: Reason


class OrderPlaced(BaseModel):
    """A new order."""

    id: int
    status: Literal["placed", "fulfilled"]
    total: int
    items: list[OrderItemPublic]
    skipped: list[Skipped]


# Who is asking.

SECRET_KEY = os.environ["SECRET_KEY"]
bearer = OAuth2PasswordBearer(tokenUrl="auth/token", auto_error=False)
unauthorized = HTTPException(401, headers={"WWW-Authenticate": "Bearer"})


async def get_id_if_any(token: Annotated[str | None, Depends(bearer)]) -> int | None:
    """Return the user's id in the token, None without one."""
    if token is None:
        return None
    try:
        options: Any = {"require": ["sub", "exp"]}
        claims = jwt.decode(token, SECRET_KEY, algorithms=["HS256"], options=options)
        return int(claims["sub"])
    except (jwt.InvalidTokenError, ValueError) as error:
        raise unauthorized from error


async def get_id(user_id: Annotated[int | None, Depends(get_id_if_any)]) -> int:
    """Return the user's id in the token."""
    if user_id is None:
        raise unauthorized
    return user_id


def check_user(connection: Any, user_id: int) -> None:
    """Read the user, who may be gone."""
    query = "SELECT id, email, full_name, balance FROM users WHERE id = %s"
    if connection.execute(query, (user_id,)).fetchone() is None:
        raise unauthorized


UserIdIfAnyDep = Annotated[int | None, Depends(get_id_if_any)]
UserIdDep = Annotated[int, Depends(get_id)]

# The endpoints.

app = FastAPI(lifespan=lifespan)

SHOWN = """
SELECT id, sku, name, price, stock, ARRAY(
    SELECT tags.name FROM product_tags JOIN tags ON tags.id = tag_id
    WHERE product_id = products.id ORDER BY tags.name COLLATE "C"
) AS tags
"""
ORDERED = """
, EXISTS (
    SELECT FROM order_items JOIN orders ON orders.id = order_id
    WHERE product_id = products.id AND user_id = %(user_id)s
) AS ordered
"""
FILTERS = {
    "search": """(
        position(lower(%(search)s) IN lower(name)) > 0
        OR position(lower(%(search)s) IN lower(sku)) > 0
    )""",
    "min_price": "price >= %(min_price)s",
    "max_price": "price <= %(max_price)s",
    "in_stock": "(stock > 0) = %(in_stock)s",
    "tag": """EXISTS (
        SELECT FROM product_tags JOIN tags ON tags.id = tag_id
        WHERE product_id = products.id AND tags.name = %(tag)s
    )""",
}


@app.get("/products/{product_id}")
def get_product(product_id: Id) -> ProductPublic:
    """Show a product."""
    query = f"{SHOWN} FROM products WHERE id = %s".encode()
    with pool.connection() as connection:
        row = connection.execute(query, (product_id,)).fetchone()
    if row is None:
        raise HTTPException(404)
    return ProductPublic(**row)


@app.get("/products")
def list_products(
    user_id: UserIdIfAnyDep, query: Annotated[ProductQuery, Query()]
) -> ProductPage:
    """List products by id; a user sees what was ordered before."""
    given = query.model_dump(exclude_none=True)
    values = given | {"user_id": user_id, "most": query.limit + 1}
    filters = [FILTERS[name] for name in FILTERS.keys() & given.keys()]
    conditions = " AND ".join(["true", *filters])
    ordered = "" if user_id is None else ORDERED
    page = "ORDER BY id OFFSET %(offset)s LIMIT %(most)s"
    statement = f"{SHOWN} {ordered} FROM products WHERE {conditions} {page}".encode()
    with pool.connection() as connection:
        if user_id is not None:
            check_user(connection, user_id)
        rows = connection.execute(statement, values).fetchall()
    return ProductPage(
        items=[ProductListed(**row) for row in rows[: query.limit]],
        limit=query.limit,
        offset=query.offset,
        has_more=len(rows) > query.limit,
    )


@app.post("/products", status_code=201)
def create_product(user_id: UserIdDep, data: ProductCreate) -> ProductPublic:
    """Add a product, with tags that there are or that are made."""
    with pool.connection() as connection, connection.transaction():
        check_user(connection, user_id)
        tags = tags_of(connection, data.tags)
        if missing := sorted({*data.tags} - tags.keys()):
            new = "INSERT INTO tags (name) SELECT unnest(%s::text[])"
            connection.execute(f"{new} ON CONFLICT DO NOTHING".encode(), (missing,))
            tags = tags_of(connection, data.tags)
        values = (data.sku, data.name, data.price, data.stock)
        new = "INSERT INTO products (sku, name, price, stock) VALUES (%s, %s, %s, %s)"
        try:
            product_id = id_of(connection, new, *values)
        except UniqueViolation as error:
            raise HTTPException(409, "This SKU is taken.") from error
        if tags:
            new = "INSERT INTO product_tags SELECT %s, unnest(%s::bigint[])"
            connection.execute(new.encode(), (product_id, [*tags.values()]))
    shown = data.model_dump() | {"id": product_id, "tags": sorted(tags)}
    return ProductPublic(**shown)


def id_of(connection: Any, insert: str, *values: object) -> int:
    """Insert a row, and return its id."""
    row = connection.execute(f"{insert} RETURNING id", values).fetchone()
    return int(row["id"])


def tags_of(connection: Any, names: list[str]) -> dict[str, int]:
    """Return the ids of the tags with these names that there are."""
    if not names:
        return {}
    query = "SELECT name, id FROM tags WHERE name = ANY(%s::text[])"
    return {row["name"]: row["id"] for row in connection.execute(query, (names,))}


@app.post("/orders", status_code=201)
def place_order(user_id: UserIdDep, data: OrderCreate) -> OrderPlaced:
    """Take the lines from the stock, and store the order."""
    with pool.connection() as connection, connection.transaction():
        check_user(connection, user_id)
        query = "SELECT id, price, stock FROM products WHERE id = ANY(%s::bigint[])"
        ids = [line.product_id for line in data.items]
        rows = connection.execute(f"{query} ORDER BY id FOR UPDATE".encode(), (ids,))
        stocks = {row["id"]: (row["price"], row["stock"]) for row in rows}
        items, skipped = allocate(data, stocks)
        products = [item.product_id for item in items]
        quantities = [item.quantity for item in items]
        change = "UPDATE products SET stock = stock - quantity"
        lines = "unnest(%s::bigint[], %s::bigint[]) AS lines (product_id, quantity)"
        connection.execute(
            f"{change} FROM {lines} WHERE id = product_id".encode(),
            (products, quantities),
        )
        total = sum(item.price * item.quantity for item in items)
        new = "INSERT INTO orders (user_id, status, total) VALUES (%s, 'placed', %s)"
        order_id = id_of(connection, new, user_id, total)
        new = "INSERT INTO order_items (order_id, product_id, quantity, price)"
        lines = "SELECT %s, * FROM unnest(%s::bigint[], %s::int[], %s::bigint[])"
        prices = [item.price for item in items]
        connection.execute(
            f"{new} {lines}".encode(), (order_id, products, quantities, prices)
        )
    return OrderPlaced(
        id=order_id, status="placed", total=total, items=items, skipped=skipped
    )


def allocate(
    data: OrderCreate, stocks: dict[int, tuple[int, int]]
) -> tuple[list[OrderItemPublic], list[Skipped]]:
    """Return the lines that are available, and those that are not."""
    items: list[OrderItemPublic] = []
    skipped: list[Skipped] = []
    for line in sorted(data.items, key=lambda line: line.product_id):
        price, stock = stocks.get(line.product_id, (0, 0))
        if stock >= line.quantity:
            items.append(OrderItemPublic(**line.model_dump(), price=price))
        elif data.on_shortage == "skip":
            reason: Reason = "shortage" if line.product_id in stocks else "unknown"
            skipped.append(Skipped(**line.model_dump(), reason=reason))
        elif line.product_id in stocks:
            raise HTTPException(409, f"Product {line.product_id} is out of stock.")
        else:
            raise HTTPException(404, f"There is no product {line.product_id}.")
    if not items:
        raise HTTPException(409, "None of these products is available.")
    return items, skipped
