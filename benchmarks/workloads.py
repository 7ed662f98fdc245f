"""What is asked of a shop when it is measured, and the rows that it finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import jwt

PRODUCTS = 1_000
LINES = 5
SECRET_KEY = "a key of those who measure only " * 2
# Every product has two of twenty tags. The user has ordered some of the first ones.
ROWS = f"""
INSERT INTO users (email, full_name, password_hash, balance)
VALUES ('ada@example.com', 'Ada', '', 10000);
INSERT INTO tags (name) SELECT 'tag ' || n FROM generate_series(1, 20) AS n;
INSERT INTO products (sku, name, price, stock)
SELECT 'sku-' || n, 'Product ' || n, 100 + n, 1000000000
FROM generate_series(1, {PRODUCTS}) AS n;
INSERT INTO product_tags
SELECT n, 1 + (n + more) % 20
FROM generate_series(1, {PRODUCTS}) AS n, (VALUES (0), (7)) AS both_of_them (more);
INSERT INTO orders (user_id, status, total)
SELECT 1, 'placed', 0 FROM generate_series(1, 4);
INSERT INTO order_items (order_id, product_id, quantity, price)
SELECT 1 + n % 4, n * 2, 1, 100 FROM generate_series(1, 20) AS n;
"""
# Not within a transaction.
TIDY = "VACUUM ANALYZE"


def token() -> str:
    """Return a token of the user, for a day."""
    claims = {"sub": "1", "exp": datetime.now(UTC) + timedelta(days=1)}
    return jwt.encode(claims, SECRET_KEY, "HS256")


def request(method: str, path: str, token: str = "", body: Any = None) -> bytes:
    """Return a request as it is sent."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    content = b"" if body is None else json.dumps(body).encode()
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content:
        lines.append("Content-Type: application/json")
        lines.append(f"Content-Length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode() + content


def read(random: Random, _token: str) -> bytes:
    """Read a product with its tags, as anybody may."""
    return request("GET", f"/products/{random.randint(1, PRODUCTS)}")


def list_products(_random: Random, token: str) -> bytes:
    """List fifty products, and which of them the user has ordered."""
    return request("GET", "/products", token)


def create(random: Random, token: str) -> bytes:
    """Create a product with two tags that there are."""
    number = random.getrandbits(64)
    tags = [f"tag {number % 20 + 1}", f"tag {(number + 7) % 20 + 1}"]
    product = {"sku": f"{number:x}", "name": "New", "price": 100, "stock": 1}
    return request("POST", "/products", token, product | {"tags": tags})


def order(random: Random, token: str) -> bytes:
    """Order five products."""
    products = random.sample(range(1, PRODUCTS + 1), LINES)
    lines = [{"product_id": id, "quantity": 1} for id in products]
    return request("POST", "/orders", token, {"items": lines})


WORKLOADS: dict[str, Callable[[Random, str], bytes]] = {
    "read": read,
    "list": list_products,
    "create": create,
    "order": order,
}
