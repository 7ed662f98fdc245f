{% extends "async.jinja" %}
{% block code %}
"""How Alembic reaches the database; it takes the settings of the app."""

{% if cookiecutter.io == 'async' %}
import asyncio
{% endif %}
import logging
import re
from typing import Any, Literal

from alembic import context
from sqlalchemy import ClauseElement, Connection
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.functions import now
from sqlalchemy.types import TypeDecorator

from app.config import Settings, load_settings
from app.db.base import metadata
from app.db.database import import_models
from app.db.engine import make_engine
from app.db.migrations import (
    allow_rebuilding,
    migration_settings,
    take_turn,
    whole_tables,
)
from app.logs import configure_logging

logger = logging.getLogger("app.migrations")

# Alembic compares the database with the models that are imported, and would drop the
# tables of the others.
import_models()

given: Settings | None = context.config.attributes.get("settings")
settings = migration_settings(given or load_settings())
if given is None:  # on the command line
    configure_logging(settings)

# What PostgreSQL and SQLite both read: true is not 1 in PostgreSQL.
PORTABLE = DefaultDialect(supports_native_boolean=True)


def render_item(kind: str, item: Any, autogen: Any) -> str | Literal[False]:
    """Write a type or a default into a migration as each database takes it."""
    if kind == "type" and type(item).__module__.startswith("sqlalchemy.dialects."):
        # On another database, Alembic writes JSONB(astext_type=Text()), but no import.
        inner = re.findall(r"(?<=[(=])[A-Z]\w*(?=\()", repr(item))
        autogen.imports.update(f"from sqlalchemy import {name}" for name in inner)
    if kind == "type" and isinstance(item, TypeDecorator):
        stored = item.impl_instance
        if type(stored).__module__ == "sqlalchemy.sql.sqltypes":
            return f"sa.{stored!r}"
    default = getattr(item, "arg", None) if kind == "server_default" else None
    if isinstance(default, now):  # which SQLite does not know
        return 'sa.text("CURRENT_TIMESTAMP")'
    if isinstance(default, ClauseElement):
        literally = {"literal_binds": True}
        sql = default.compile(dialect=PORTABLE, compile_kwargs=literally)
        return f"sa.text({str(sql)!r})"
    return False


def log_migration(*_: object, **applied: Any) -> None:
    """Say what ran."""
    step = applied["step"]
    way = "applied" if step.is_upgrade else "took back"
    logger.info("%s %s: %s", way, step.up_revision_id, step.up_revision.doc)


def migrate(connection: Connection) -> None:
    """Run what Alembic was told to, in one transaction."""
    take_turn(connection, settings)
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # What is generated on PostgreSQL has to run on SQLite, which alters nothing.
        render_as_batch=True,
        render_item=render_item,
        on_version_apply=log_migration,
        transactional_ddl=True,
    )
    with context.begin_transaction(), whole_tables(connection):
        context.run_migrations()
    connection.commit()  # behind a pooler, the transaction began with the lock


async def run_online() -> None:
    """Connect and migrate."""
    engine = make_engine(settings)
    if settings.is_sqlite:
        allow_rebuilding(engine.sync_engine)
    try:
        async with engine.connect() as connection:
{% if cookiecutter.io == 'async' %}
            await connection.run_sync(migrate)
{% else %}
            migrate(connection)
{% endif %}
    finally:
        await engine.dispose()


def run_offline() -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    context.configure(
        dialect_name="sqlite" if settings.is_sqlite else "postgresql",
        target_metadata=metadata,
        literal_binds=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    run_offline()
else:
{% if cookiecutter.io == 'async' %}
    asyncio.run(run_online())
{% else %}
    run_online()
{% endif %}
{% endblock %}
