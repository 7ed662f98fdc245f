{% extends "async.jinja" %}
{% block code %}
"""The kinds of session: where a transaction begins, and where it ends.

| kind       | for                    | transaction                              |
| ---------- | ---------------------- | ---------------------------------------- |
| `write`    | changing anything      | from the first statement to the commit   |
| `read`     | one reading statement  | none: one round trip                     |
| `snapshot` | several, of one moment | REPEATABLE READ, READ ONLY               |
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
{% if cookiecutter.io == 'async' %}
from typing import Any, NoReturn, Self, Unpack, cast
{% else %}
from typing import Any, Self, Unpack, cast
{% endif %}

{% if cookiecutter.io == 'sync' %}
from sqlalchemy import Connection
{% endif %}
{% if cookiecutter.io == 'sync' and cookiecutter.orm == 'sqlalchemy' %}
from sqlalchemy.orm import Session, sessionmaker
{% endif %}
{% if cookiecutter.io == 'sync' and cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy.orm import sessionmaker
{% endif %}
{% if cookiecutter.io == 'async' and cookiecutter.orm == 'sqlalchemy' %}
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
{% endif %}
{% if cookiecutter.io == 'async' and cookiecutter.orm == 'sqlmodel' %}
from sqlalchemy.ext.asyncio import AsyncConnection, async_sessionmaker
{% endif %}
from sqlalchemy.pool import Pool, QueuePool
{% if cookiecutter.orm == 'sqlmodel' %}
from sqlmodel.ext.asyncio.session import AsyncSession
{% endif %}

from app.config import Settings
from app.db.admission import Admission
{% if cookiecutter.commit == 'manual' or cookiecutter.pattern == 'unit_of_work' %}
from app.db.changes import refuse_forgotten_commit
{% endif %}
from app.db.discovery import import_models
from app.db.engine import make_engine
from app.db.guards import ENDED, ONE_STATEMENT, SnapshotNeededError
from app.db.timeouts import Timeouts, set_local, timeout_parameters

# Objects stay readable after the commit, and a session that has ended raises when it
# is used again, instead of taking a connection that nobody gives back.
_OPTIONS: dict[str, Any] = {"expire_on_commit": False, "close_resets_only": False}
# A readiness probe is answered soon, or it is not ready.
_PROBE: dict[str, Any] = {
    "database_pool_size": 1,
    "database_max_overflow": 0,
    "database_pool_timeout": 2,
    "database_connect_timeout": 2,
    "database_statement_timeout": 2,
    "database_lock_timeout": 1,
}


class ReadSession(AsyncSession):
    """A session for reading. The database refuses its writes."""

    async def close(self) -> None:
        """End it for good, and for all tasks; its connection goes back to the pool."""
        self.info[ENDED] = True
        await super().close()

    async def set_timeouts(self, **seconds: Unpack[Timeouts]) -> None:
        """Give this transaction timeouts of its own; they end with it (S10).

        SQLite takes its only lock when the transaction begins, so that `lock` is for
        the first call of all there, which waits for it; and it ends no idle one.
        Raises `SnapshotNeededError` where each statement is a transaction.
        """
        if ONE_STATEMENT in self.info:
            raise SnapshotNeededError("take SnapshotDep to set timeouts")
        parameters = timeout_parameters(**seconds)
        if not parameters:
            return
        if self.get_bind().dialect.name == "postgresql":
            connection = await self.connection()
            await connection.execute(set_local(parameters))
        elif self.in_transaction():
            connection = await self.connection()
            await connection.execution_options(**parameters)
        else:
            await self.connection(execution_options=parameters)


class WriteSession(ReadSession):
    """A session for writing; it may go wherever a `ReadSession` may, not vice versa."""

    has_committed = False

{% if cookiecutter.io == 'async' %}
    def begin(self) -> NoReturn:
        """Raise: `async with session.begin():` would commit past `commit()`."""
        raise RuntimeError("use commit(): what has committed must not run again")

{% else %}
    def begin(self, nested: bool = False) -> Any:
        """Begin a savepoint; otherwise raise: it would commit past `commit()`."""
        if not nested:
            raise RuntimeError("use commit(): what has committed must not run again")
        return super().begin(nested=True)

{% endif %}
    async def commit(self) -> None:
        """Save everything since the last commit.

        Raises `CommitOutcomeUnknownError` if the connection breaks meanwhile.
        """
        await super().commit()
        self.has_committed = True


class Database:
    """The engines and their sessions; made when the app starts, disposed at its end.

    One pool writes, one reads, and a single connection answers whether the database
    is ready, whatever the pools are doing. A script makes one by
    `async with Database(load_settings()) as database:` (S12).
    """

    def __init__(self, settings: Settings) -> None:
        """Prepare everything; the first session connects."""
        # A script may have imported some of the models, whose tables refer to others.
        import_models()
        places = settings.database_pool_size + settings.database_max_overflow
        self.write_admission = Admission(places, settings.database_pool_timeout)
        self.read_admission = Admission(places, settings.database_pool_timeout)
        # Streams hold a connection for as long as their readers like.
        streams = max(places // 2, 1)
        self.stream_admission = Admission(streams, settings.database_pool_timeout)
        self.stream_timeout = settings.database_stream_timeout
        self.retry_deadline = settings.database_retry_deadline
        self.write_engine = make_engine(settings)
        self.read_engine = make_engine(settings, read_only=True, replica=True)
        self.probe_engine = make_engine(
            settings.model_copy(update=_PROBE), read_only=True
        )
        self._write = async_sessionmaker(
            self.write_engine,
            class_=WriteSession,
            **_OPTIONS,
        )
        self._read = async_sessionmaker(
            self.read_engine,
            class_=ReadSession,
            autoflush=False,
            **_OPTIONS,
        )
        self._read_options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT"}
        self._snapshot_options: dict[str, Any] = {}
        # SQLite's BEGIN IMMEDIATE keeps writers apart in any case.
        self._serializable_options: dict[str, Any] = {}
        if not settings.is_sqlite:
            self._serializable_options = {"isolation_level": "SERIALIZABLE"}
            self._snapshot_options = {
                "isolation_level": "REPEATABLE READ",
                "postgresql_readonly": True,
            }
        if settings.database_pooler == "transaction":
            # Outside a transaction nothing would set the timeouts, nor READ ONLY.
            self._read_options = {"postgresql_readonly": True}

    @asynccontextmanager
    async def write(self, *, serializable: bool = False) -> AsyncIterator[WriteSession]:
{% if cookiecutter.pattern == 'unit_of_work' %}
        """Give a session for units of work, each of which ends its own transaction.

        Raises `ForgottenCommitError` if changes were left undecided.
        """
        options = self._serializable_options if serializable else {}
        async with self._write(execution_options=options) as session:
            yield session
            refuse_forgotten_commit(session.sync_session)
{% endif %}
{% if cookiecutter.commit == 'auto' and cookiecutter.pattern == 'repository' %}
        """Give a session that commits when the block ends without an exception."""
        options = self._serializable_options if serializable else {}
        async with self._write(execution_options=options) as session:
            yield session
            await session.commit()
{% endif %}
{% if cookiecutter.commit == 'manual' and cookiecutter.pattern == 'repository' %}
        """Give a session that saves what the block itself commits.

        Raises `ForgottenCommitError` if changes were left undecided.
        """
        options = self._serializable_options if serializable else {}
        async with self._write(execution_options=options) as session:
            yield session
            refuse_forgotten_commit(session.sync_session)
{% endif %}

    @asynccontextmanager
    async def read(self) -> AsyncIterator[ReadSession]:
        """Give a session for one reading statement.

        A second one raises `SnapshotNeededError`: it would see another moment.
        """
        async with self._read(
            execution_options=self._read_options, info={ONE_STATEMENT: False}
        ) as session:
            yield session

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[ReadSession]:
        """Give a session whose statements all see the same moment."""
        async with self._read(execution_options=self._snapshot_options) as session:
            yield session

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
{% if cookiecutter.commit == 'auto' %}
        """Give a Core connection that commits when the block ends without an exception.

        Raises `CommitOutcomeUnknownError` if the connection breaks meanwhile.
        """
        async with self.write_engine.connect() as connection:
            yield connection
            await connection.commit()
{% else %}
        """Give a Core connection that saves what the block itself commits."""
        async with self.write_engine.connect() as connection:
            yield connection
{% endif %}

    def gauges(self) -> dict[str, dict[str, int]]:
        """Count the connections of each pool, and who waits for one (S16)."""
        streaming = self.stream_admission.waiting
        return {
            "write": _gauges(self.write_engine.pool, self.write_admission.waiting),
            "read": _gauges(
                self.read_engine.pool, self.read_admission.waiting + streaming
            ),
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.dispose()

    async def dispose(self) -> None:
        """Close all connections."""
        for engine in (self.write_engine, self.read_engine, self.probe_engine):
            await engine.dispose()


def _gauges(pool: Pool, waiting: int) -> dict[str, int]:
    pool = cast("QueuePool", pool)
    return {
        "size": pool.size(),
        "checked_in": pool.checkedin(),
        "checked_out": pool.checkedout(),
        "overflow": max(pool.overflow(), 0),
        "waiting": waiting,
    }
{% endblock %}
