{% extends "async.jinja" %}
{% block code %}
"""Outside requests the same rules hold, by context managers (S12)."""

import pytest
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db.errors import CommitOutcomeUnknownError
from app.db.session import Database
from tests.session.probe import Note, count, count_apart
from tests.support import execute


async def test_a_database_closes_its_connections_at_its_end(
    notes_settings: Settings,
) -> None:
    async with Database(notes_settings) as database:
        async with database.read() as session:
            await count(session)
        pool = database.read_engine.pool
        assert database.gauges()["read"]["checked_in"] == 1
    assert pool.status().startswith("Pool size: 1  Connections in pool: 0")


async def insert_and_fail(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(insert(Note).values(text="lost"))
        raise RuntimeError("a bug")


async def test_a_core_connection_saves_nothing_when_its_block_fails(
    database: Database,
) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await insert_and_fail(database)
    assert await count_apart(database) == 0


{% if cookiecutter.commit == 'auto' %}
async def test_a_core_connection_commits_when_its_block_ends_well(
    database: Database,
) -> None:
    async with database.connection() as connection:
        await connection.execute(insert(Note).values(text="kept"))
    assert await count_apart(database) == 1
{% else %}
async def test_a_core_connection_saves_what_is_committed(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute(insert(Note).values(text="kept"))
        await connection.commit()
        await connection.execute(insert(Note).values(text="lost"))
    assert await count_apart(database) == 1
{% endif %}


async def lose_the_connection(database: Database, settings: Settings) -> None:
    async with database.connection() as connection:
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await execute(settings, f"SELECT pg_terminate_backend({pid}, 5000)")
{% if cookiecutter.commit == 'manual' %}
        await connection.commit()
{% endif %}


async def test_it_is_told_when_nobody_knows_whether_that_was_saved(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    with pytest.raises(CommitOutcomeUnknownError):
        await lose_the_connection(database, notes_settings)


async def test_what_is_lost_after_a_commit_is_known(
    database: Database,
    notes_settings: Settings,
) -> None:
    if notes_settings.is_sqlite:
        pytest.skip("SQLite has no connection to lose")
    async with database.write_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        await connection.commit()
        pid = await connection.scalar(text("SELECT pg_backend_pid()"))
        await execute(notes_settings, f"SELECT pg_terminate_backend({pid}, 5000)")
        with pytest.raises(DBAPIError):
            await connection.execute(text("SELECT 1"))
{% endblock %}
