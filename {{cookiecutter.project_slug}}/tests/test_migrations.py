"""Migrations, on a database of their own: up, down, up again, and no drift."""

import datetime
import decimal
import logging
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Enum,
    MetaData,
    Table,
    insert,
    inspect,
    select,
    text,
)
from sqlalchemy.schema import DropConstraint

from app.config import ROOT
from app.db.base import metadata
from app.db.migrations import LOCK, alembic_config, migration_settings, upgrade
from tests.conftest import DATABASES, fresh_database
from tests.support import POOLER, at_once, make_settings, run, run_on

# What is stored in a column that needs a value.
VALUES: dict[type, Any] = {
    bool: True,
    int: 1,
    float: 1.0,
    decimal.Decimal: decimal.Decimal(1),
    str: "x",
    bytes: b"x",
    datetime.datetime: datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC),
    datetime.date: datetime.date(2000, 1, 1),
    datetime.time: datetime.time(12),
    datetime.timedelta: datetime.timedelta(1),
    uuid.UUID: uuid.UUID(int=1),
    dict: {},
    list: [],
    object: {},  # JSON
}


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Give the URL of an empty database."""
    with fresh_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def config(url: str) -> Config:
    """Give Alembic's configuration for an empty database."""
    return alembic_config(make_settings(url))


def plant(config: Config, folder: Path, *migrations: str) -> None:
    """Put migrations of the tests' own, each the body of `upgrade`, after the head."""
    parent = ScriptDirectory.from_config(config).get_current_head()
    for number, body in enumerate(migrations):
        lines = (
            f'"""Planted {number}."""',
            "import sqlalchemy as sa",
            "from alembic import op",
            f"revision, down_revision = 'planted{number}', {parent!r}",
            "branch_labels = depends_on = None",
            "def upgrade():",
            *(f"    {line}" for line in body.strip().splitlines()),
        )
        (folder / f"planted{number}.py").write_text("\n".join(lines))
        parent = f"planted{number}"
    folders = [str(ROOT / "migrations" / "versions"), str(folder)]
    config.set_main_option("path_separator", "os")
    config.set_main_option("version_locations", os.pathsep.join(folders))


def scalar(url: str, query: str) -> Any:
    """Return what a query finds."""
    return run(run_on, make_settings(url), lambda each: each.scalar(text(query)))


def test_there_is_one_head(config: Config) -> None:
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_up_down_and_up_again(config: Config) -> None:
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.current(config, check_heads=True)


def test_the_models_are_what_the_migrations_make(config: Config) -> None:
    command.upgrade(config, "head")
    command.check(config)


def stored_lengths(connection: Connection) -> dict[str, int | None]:
    """Return how long the values of each of the models' columns may be."""
    return {
        f"{table}.{column['name']}": getattr(column["type"], "length", None)
        for table in metadata.tables
        for column in inspect(connection).get_columns(table)
    }


def test_columns_are_as_long_as_the_models_say(config: Config, url: str) -> None:
    # Alembic compares no lengths of which a model says nothing.
    command.upgrade(config, "head")
    lengths = {
        str(column): getattr(column.type, "length", None)
        for table in metadata.sorted_tables
        for column in table.columns
    }
    stored = run(run_on, make_settings(url), stored_lengths)
    assert {each: stored.get(each, "no such column") for each in lengths} == lengths


def stored_checks(connection: Connection) -> dict[str, set[str | None]]:
    """Return the names of the CHECK constraints of each of the models' tables."""
    checks = inspect(connection).get_check_constraints
    return {name: {each["name"] for each in checks(name)} for name in metadata.tables}


def test_checks_are_those_of_the_models(config: Config, url: str) -> None:
    # Alembic compares none.
    command.upgrade(config, "head")
    checks = {
        table.name: {
            each.name for each in table.constraints if isinstance(each, CheckConstraint)
        }
        for table in metadata.sorted_tables
    }
    assert run(run_on, make_settings(url), stored_checks) == checks


def value_for(column: Column[Any], rows: dict[Table, Any]) -> Any:
    """Return a value for a column, of its type, or of the row that it refers to."""
    for key in column.foreign_keys:
        return rows[key.column.table]._mapping[key.column]
    stored: Any = getattr(column.type, "impl_instance", column.type)
    if isinstance(stored, Enum):
        return next(iter(stored.enum_class or stored.enums))
    kind = stored.python_type
    assert kind in VALUES, f"VALUES of this test needs a value for {column!r}"
    return VALUES[kind]


def store_a_row_of_each_table(connection: Connection) -> None:
    """Store what must be given, let the database compute the rest, and read it."""
    tables = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.sorted_tables:
        table.to_metadata(tables)
    # No values that they forbid are known here.
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
    else:
        for table in tables.sorted_tables:
            for each in {*table.constraints}:
                if isinstance(each, CheckConstraint):
                    connection.execute(DropConstraint(each))
    rows: dict[Table, Any] = {}
    for table in tables.sorted_tables:
        for column in table.columns:
            column.default = None  # Python's; only the database's own are left
        needed = [
            column
            for column in table.columns
            if not column.nullable
            and column.server_default is None
            and column is not table.autoincrement_column
        ]
        values = {column: value_for(column, rows) for column in needed}
        try:
            connection.execute(insert(table).values(values))
            rows[table] = connection.execute(select(table)).one()
        except Exception as error:
            error.add_note(f"a row of {table} cannot be stored and read")
            raise


def test_a_row_of_each_table_can_be_stored_and_read(config: Config, url: str) -> None:
    command.upgrade(config, "head")
    run(run_on, make_settings(url), store_a_row_of_each_table)


def test_rebuilding_a_table_loses_no_rows(
    config: Config, url: str, tmp_path: Path
) -> None:
    plant(
        config,
        tmp_path,
        """
key = sa.Column("id", sa.Integer, primary_key=True)
op.create_table("old", key, sa.Column("a", sa.Integer))
reference = sa.ForeignKey("old.id", ondelete="CASCADE")
op.create_table("new", sa.Column("id", sa.Integer, reference))
op.execute("INSERT INTO old (a) VALUES (1)")
op.execute("INSERT INTO new (id) VALUES (1)")
""",
        """
with op.batch_alter_table("old") as batch:
    batch.alter_column("a", existing_type=sa.Integer, type_=sa.BigInteger)
op.execute("INSERT INTO old (a) VALUES (2)")
op.execute("DELETE FROM old WHERE a = 2")
op.execute("INSERT INTO old (a) VALUES (3)")
""",
    )
    command.upgrade(config, "planted0")
    command.upgrade(config, "head")
    assert scalar(url, "SELECT count(*) FROM new") == 1
    assert scalar(url, "SELECT id FROM old WHERE a = 3") == 3, "an id was given twice"


def test_a_migration_that_breaks_a_reference_changes_nothing(
    config: Config, url: str, tmp_path: Path
) -> None:
    plant(
        config,
        tmp_path,
        """
op.create_table("old", sa.Column("id", sa.Integer, primary_key=True))
op.create_table("new", sa.Column("id", sa.Integer, sa.ForeignKey("old.id")))
""",
        'op.execute("INSERT INTO new (id) VALUES (1)")',
    )
    command.upgrade(config, "planted0")
    with pytest.raises(Exception, match=r"FOREIGN KEY|foreign key|row of old"):
        command.upgrade(config, "head")
    assert scalar(url, "SELECT count(*) FROM new") == 0
    assert scalar(url, "SELECT version_num FROM alembic_version") == "planted0"


def test_an_index_can_be_built_outside_a_transaction(
    config: Config, tmp_path: Path
) -> None:
    if POOLER == "transaction":
        pytest.skip("that needs a DATABASE_MIGRATION_URL, past the pooler")
    plant(
        config,
        tmp_path,
        """
op.create_table("old", sa.Column("a", sa.Integer))
with op.get_context().autocommit_block():
    op.create_index("ix_old_a", "old", ["a"], postgresql_concurrently=True)
""",
    )
    command.upgrade(config, "head")
    command.current(config, check_heads=True)


def test_migrations_at_once_wait_for_each_other(tmp_path: Path) -> None:
    if "postgresql" not in DATABASES:
        pytest.skip("SQLite's own lock keeps migrations apart")

    def migrate(url: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT,
            env=os.environ | {"DATABASE_URL": url, "DATABASE_POOLER": POOLER},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stderr

    with fresh_database("postgresql", tmp_path) as url:
        logs = at_once(lambda _: migrate(url), 3)
        command.current(alembic_config(make_settings(url)), check_heads=True)
    assert sum("applied 0001" in log for log in logs) == 1


def test_waiting_for_another_migration_ends(tmp_path: Path) -> None:
    if "postgresql" not in DATABASES:
        pytest.skip("SQLite's own lock keeps migrations apart")

    with fresh_database("postgresql", tmp_path) as url:
        settings = make_settings(url, database_migration_timeout=0.3)

        def try_in_vain(connection: Connection) -> None:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
            with pytest.raises(CommandError, match="another process has been"):
                at_once(lambda _: upgrade(settings), 1)

        run(run_on, settings, try_in_vain)
        upgrade(settings)


def test_what_ran_is_logged(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "app.migrations")
    command.upgrade(config, "head")
    applied = [each.getMessage() for each in caplog.records]
    command.downgrade(config, "base")
    script = ScriptDirectory.from_config(config)
    walked = [f"{each.revision}: {each.doc}" for each in script.walk_revisions()]
    logged = [each.getMessage() for each in caplog.records if "app" in each.name]
    assert applied == [f"applied {each}" for each in walked[::-1]]
    assert logged[len(applied) :] == [f"took back {each}" for each in walked]


@pytest.mark.parametrize("kind", DATABASES)
def test_timeouts_do_not_stop_a_migration(kind: str, tmp_path: Path) -> None:
    timeouts = {"database_statement_timeout": 0.001, "database_lock_timeout": 0}
    with fresh_database(kind, tmp_path) as url:
        upgrade(make_settings(url, **timeouts))


def test_migrations_may_have_a_url_of_their_own(tmp_path: Path) -> None:
    if "postgresql" not in DATABASES:
        pytest.skip("only PostgreSQL has accounts and poolers")
    if POOLER == "transaction":
        pytest.skip("a URL of its own leads past the pooler")
    nowhere = "postgresql://somebody@127.0.0.1:1/nothing"
    with fresh_database("postgresql", tmp_path) as url:
        own = {"database_pooler": "transaction", "database_migration_url": url}
        settings = make_settings(nowhere, **own)
        # Its lock is the session's, and outlives a transaction.
        assert migration_settings(settings).database_pooler == "none"
        upgrade(settings)
        command.current(alembic_config(make_settings(url)), check_heads=True)


def test_the_sql_can_be_printed_for_review(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Not for SQLite: to rebuild a table, Alembic has to read it.
    config = alembic_config(make_settings("postgresql://127.0.0.1:1/nothing"))
    command.upgrade(config, "head", sql=True)
    printed = capsys.readouterr().out
    head = ScriptDirectory.from_config(config).get_current_head()
    assert f"'{head}'" in printed
