"""All variants are one service: the same interface, on the same tables."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.postgres import Server
from tests.service import MIGRATE, run
from tests.template import COMBINATIONS, Answers, Bakery, name_of

pytestmark = pytest.mark.slow

FIRST, *OTHERS = COMBINATIONS
DOCUMENT = """
import json
from app.main import app
print(json.dumps(app.openapi(), indent=1))
"""
ON_SQLITE = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY type, name"
ON_POSTGRESQL = {
    "columns": """
        SELECT relname, relkind::text, attnum, attname,
            format_type(atttypid, atttypmod), attnotnull, attidentity::text,
            attgenerated::text, pg_get_expr(adbin, adrelid)
        FROM pg_class
            JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
            LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'public'::regnamespace ORDER BY relname, attnum
    """,
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2
    """,
    "indexes": """
        SELECT indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'public' ORDER BY indexname
    """,
}

Schemas = dict[str, list[Any]]


def document_of(project: Path) -> str:
    """Return a project's OpenAPI document, and nothing that the log says."""
    return run(project, sys.executable, "-c", DOCUMENT, LOG_LEVEL="ERROR")


def schemas_of(project: Path, server: Server, folder: Path) -> Schemas:
    """Return what a project's migrations make of an empty database of either kind."""
    url, file = server.create_database(), folder / "database.db"
    for each in (url, f"sqlite:///{file}"):
        run(project, *MIGRATE, DATABASE_URL=each)
    with closing(sqlite3.connect(file)) as connection:
        on_sqlite = connection.execute(ON_SQLITE).fetchall()
    return {"SQLite": on_sqlite} | {
        f"{kind} on PostgreSQL": server.execute(query, url)
        for kind, query in ON_POSTGRESQL.items()
    }


@pytest.fixture(scope="module")
def documents(bake: Bakery) -> dict[bool, str]:
    """The first variant's documents, with and without the example."""
    return {
        example: document_of(bake(**FIRST, example=example))
        for example in (True, False)
    }


@pytest.fixture(scope="module")
def schemas(
    bake: Bakery, server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Schemas:
    """The first variant's schemas."""
    project = bake(**FIRST, example=True)
    return schemas_of(project, server, tmp_path_factory.mktemp("first"))


@pytest.mark.parametrize("variant", OTHERS, ids=name_of)
def test_the_interface_is_the_same(
    answers: Answers, rendering: Path, documents: dict[bool, str]
) -> None:
    assert document_of(rendering) == documents[answers["example"]]


@pytest.mark.parametrize("variant", OTHERS, ids=name_of)
def test_the_tables_are_the_same(
    variant: Answers, bake: Bakery, server: Server, tmp_path: Path, schemas: Schemas
) -> None:
    assert schemas_of(bake(**variant, example=True), server, tmp_path) == schemas


def test_what_is_compared_is_the_whole_of_it(
    documents: dict[bool, str], schemas: Schemas
) -> None:
    for path in ("/auth/token", "/orders/{order_id}", "/products/{product_id}"):
        assert f'"{path}"' in documents[True], path
    assert '"/health/ready"' in documents[False]
    for kind, name in [
        ("SQLite", "ck_orders_total_not_negative"),
        ("columns on PostgreSQL", "password_hash"),
        ("constraints on PostgreSQL", "fk_order_items_order_id_orders"),
        ("indexes on PostgreSQL", "ix_orders_user_id"),
    ]:
        assert name in str(schemas[kind]), kind
