{% extends "async.jinja" %}
{% block code %}
"""Which migrations the database lacks."""

from asyncio import timeout

{% if cookiecutter.io == 'sync' %}
from anyio import to_thread
{% endif %}
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.config import Settings
from app.db.database import Database
from app.db.errors import is_schema_missing
from app.db.migrations import outdated_revisions

EMPTY = "No migration was run on the database: alembic upgrade head."
BEHIND = "Migrations are pending on the database: alembic upgrade head."
# The server's own timeouts are shorter; this one is for a server that is silent.
PATIENCE = 4


async def _revision(database: Database) -> str | None:
    query = text("SELECT version_num FROM alembic_version")
    async with database.readiness_engine.connect() as connection:
        try:
            revision: str | None = await connection.scalar(query)
        except DBAPIError as error:
            if not is_schema_missing(error):
                raise
            return None
        return revision


{% endblock %}
{% block verbatim %}
class Migrations:
    """Knows the release's migrations, and asks the database for its own."""

    def __init__(self, settings: Settings, database: Database) -> None:
        """Read the files; this connects to nothing."""
        self.outdated = outdated_revisions(settings)
        """The ids of all but the newest."""
        self._database = database

    async def missing(self) -> str | None:
        """Return what the database lacks and what to do; None if it lacks nothing.

        Raises `DatabaseUnavailableError`, `SQLAlchemyError` or `TimeoutError`. This
        takes a connection of its own, whatever the pools are doing.
        """
        async with timeout(PATIENCE):
{% if cookiecutter.io == 'async' %}
            revision = await _revision(self._database)
{% else %}
            revision = await to_thread.run_sync(
                _revision, self._database, abandon_on_cancel=True
            )
{% endif %}
        if revision is None:
            return EMPTY
        # A revision that is unknown here is newer: the next release is rolled out.
        return BEHIND if revision in self.outdated else None
{% endblock %}
