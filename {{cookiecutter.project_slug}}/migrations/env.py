{% extends "async.jinja" %}
{% block code %}
"""How Alembic reaches the database; it takes the settings of the app."""

{% if cookiecutter.io == 'async' %}
import asyncio
{% endif %}
from typing import Any

from alembic import context
from sqlalchemy import Connection

from app.config import Settings, load_settings
from app.db.base import metadata
from app.db.database import import_models
from app.db.engine import make_engine

# Alembic compares the database with the models that are imported, and would drop the
# tables of the others.
import_models()

# A migration may take its time, but while it waits for a lock, requests queue behind
# it: so it gives up after DATABASE_LOCK_TIMEOUT, and you run it again.
CHANGED: dict[str, Any] = {
    "database_statement_timeout": 0,
    "database_idle_in_transaction_timeout": 0,
}

settings: Settings = context.config.attributes.get("settings") or load_settings()
if settings.database_migration_url:
    CHANGED["database_url"] = settings.database_migration_url
    CHANGED["database_pooler"] = "none"


def migrate(connection: Connection) -> None:
    """Run what Alembic was told to, in one transaction."""
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Connect and migrate."""
    engine = make_engine(settings.model_copy(update=CHANGED))
    try:
        async with engine.begin() as connection:
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
