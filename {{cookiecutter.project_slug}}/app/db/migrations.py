"""Migrations: apply them, one process at a time, and know which are outdated."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, Table, event, func, select
from sqlalchemy.engine.interfaces import DBAPIConnection

from app.config import ROOT, Settings

# "migrate" in ASCII: what a process locks that migrates a database.
LOCK = 0x6D696772617465


def alembic_config(settings: Settings) -> Config:
    """Return Alembic's configuration, for the database of `settings`."""
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["settings"] = settings
    return config


def upgrade(settings: Settings) -> None:
    """Apply all pending migrations; `alembic upgrade head` does the same."""
    command.upgrade(alembic_config(settings), "head")


def outdated_revisions(settings: Settings) -> set[str]:
    """Return the ids of all migrations but the newest, as the files have them."""
    script = ScriptDirectory.from_config(alembic_config(settings))
    revisions = {each.revision for each in script.walk_revisions()}
    return revisions - set(script.get_heads())


def migration_settings(settings: Settings) -> Settings:
    """Return the settings with which migrations connect.

    A migration may take its time, but it does not make the others queue behind it for
    a lock: it gives up after DATABASE_LOCK_TIMEOUT, and you run it again.
    """
    changes: dict[str, Any] = {
        "database_statement_timeout": 0,
        "database_idle_in_transaction_timeout": 0,
    }
    if settings.is_sqlite:
        # The lock on the file is what one migration waits for while another runs.
        changes["database_lock_timeout"] = settings.database_migration_timeout
    if settings.database_migration_url:
        changes["database_url"] = settings.database_migration_url
        changes["database_pooler"] = "none"
    return settings.model_copy(update=changes)


def take_turn(connection: Connection, settings: Settings) -> None:
    """Wait until no other process migrates, and keep others waiting.

    The lock ends with the connection. Behind a transaction pooler, where the next
    transaction may have another connection, it ends with the transaction.
    """
    if settings.is_sqlite:
        return  # its transactions wait for each other
    lock = func.pg_try_advisory_lock
    if settings.database_pooler == "transaction":
        lock = func.pg_try_advisory_xact_lock
    patience = settings.database_migration_timeout or float("inf")
    deadline = time.monotonic() + patience
    while not connection.scalar(select(lock(LOCK))):
        if time.monotonic() > deadline:
            raise CommandError(
                f"another process has been migrating this database for {patience:g} s; "
                "run this again when it has ended, or raise DATABASE_MIGRATION_TIMEOUT"
            )
        # Its CREATE INDEX CONCURRENTLY waits for all transactions that are open: so
        # none is here, nor a statement that waits in the server.
        connection.rollback()
        time.sleep(0.1)
    if settings.database_pooler == "none":
        connection.commit()


@contextmanager
def whole_tables(connection: Connection) -> Iterator[None]:
    """Keep SQLite, which rebuilds a table to alter it, from losing something of it."""
    if connection.dialect.name != "sqlite":
        yield
        return
    event.listen(Table, "after_parent_attach", _count_up)
    try:
        yield
    finally:
        event.remove(Table, "after_parent_attach", _count_up)
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if broken is not None:
        table, row, target, _ = broken
        raise CommandError(
            f"row {row} of {table} refers to a row of {target} that does not exist; "
            "nothing was changed"
        )


def allow_rebuilding(engine: Engine) -> None:
    """Let SQLite replace a table without deleting the rows that refer to it."""

    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _entry: object) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = OFF")
        cursor.close()


def _count_up(table: Table, _parent: object) -> None:
    # SQLAlchemy does not read that of the table that is rebuilt.
    table.kwargs["sqlite_autoincrement"] = True
