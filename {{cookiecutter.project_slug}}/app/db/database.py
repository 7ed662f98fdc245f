{% extends "async.jinja" %}
{% block code %}
"""The engines, and the kinds of session that they open.

| kind       | for                    | transaction                              |
| ---------- | ---------------------- | ---------------------------------------- |
| `write`    | changing anything      | from the first statement to the commit   |
| `read`     | one reading statement  | none: one round trip                     |
| `snapshot` | several, of one state  | REPEATABLE READ, READ ONLY               |
"""

import pkgutil
from functools import cache
from importlib import import_module
from typing import Any, Self, cast

from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.pool import Pool, QueuePool

import app
from app.config import Settings
from app.db.admission import Admission
from app.db.changes import notice_changes
from app.db.engine import make_engine
from app.db.session import WAS_RUN, ReadSession, WriteSession

# Objects stay readable after the commit, and a session that is closed raises when it
# is used again, instead of leaking a connection.
_OPTIONS: dict[str, Any] = {"expire_on_commit": False, "close_resets_only": False}
# A readiness check ends soon, one way or the other.
_READINESS: dict[str, Any] = {
    "database_pool_size": 1,
    "database_max_overflow": 0,
    "database_pool_timeout": 2,
    "database_connect_timeout": 2,
    "database_statement_timeout": 2,
    "database_lock_timeout": 1,
}


@cache
def import_models() -> None:
    """Import every `app.*.models`: tables refer to each other by name."""
    for module in pkgutil.walk_packages(app.__path__, "app."):
        if module.name.endswith(".models"):
            import_module(module.name)


class Database:
    """The engines and their sessions: created when the app starts, disposed at its end.

    One pool writes and one reads. Readiness has a connection of its own, so that full
    pools do not make the service unready. In a script:
    `async with Database(load_settings()) as database:`.
    """

    def __init__(self, settings: Settings) -> None:
        """Create the engines; the first statement connects."""
        if not isinstance(settings, Settings):
            raise TypeError(
                f"Database takes Settings, not {type(settings).__name__}: "
                "Database(load_settings()) of app.config"
            )
        import_models()
        slots = settings.database_pool_size + settings.database_max_overflow
        timeout = settings.database_pool_timeout
        self.write_admission = Admission(slots, timeout, "write")
        self.read_admission = Admission(slots, timeout, "read")
        # A slow client makes its stream hold a connection for long.
        streams = max(slots // 2, 1)
        self.stream_admission = Admission(streams, timeout, "stream")
        self.stream_timeout = settings.database_stream_timeout
        self.retry_deadline = settings.database_retry_deadline
        self.write_engine = make_engine(settings)
        notice_changes(self.write_engine.sync_engine)
        self.read_engine = make_engine(settings, read_only=True, replica=True)
        self.readiness_engine = make_engine(
            settings.model_copy(update=_READINESS), read_only=True
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

    def write(self, *, serializable: bool = False) -> WriteSession:
        """Return a session: `async with database.write() as session:`.

        It saves what is committed inside. Leaving the block raises
        `ForgottenCommitError` if changes were neither committed nor rolled back.
        """
        options = self._serializable_options if serializable else {}
        session: WriteSession = self._write(execution_options=options)
        return session

    def read(self) -> ReadSession:
        """Return a session for one reading statement.

        A second one raises `SnapshotNeededError`: it would see a later state.
        """
        session: ReadSession = self._read(
            execution_options=self._read_options, info={WAS_RUN: False}
        )
        return session

    def snapshot(self) -> ReadSession:
        """Return a session whose statements see the same state."""
        session: ReadSession = self._read(execution_options=self._snapshot_options)
        return session

    def gauges(self) -> dict[str, dict[str, int]]:
        """Count the connections of each pool, and the requests that wait for one."""
        streaming = self.stream_admission.waiting
        return {
            "write": _gauges(self.write_engine.pool, self.write_admission.waiting),
            "read": _gauges(
                self.read_engine.pool, self.read_admission.waiting + streaming
            ),
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.dispose()

    async def dispose(self) -> None:
        """Close all connections."""
        for engine in (self.write_engine, self.read_engine, self.readiness_engine):
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
