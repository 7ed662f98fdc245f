{% extends "async.jinja" %}
{% block code %}
"""Engines and their pools, made from the settings (S6, S14)."""

{% if cookiecutter.io == 'sync' %}
import math
import selectors
{% endif %}
import time
from typing import Any

{% if cookiecutter.io == 'async' %}
from sqlalchemy import URL, Connection, Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
{% else %}
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection, Dialect
from sqlalchemy.exc import DisconnectionError
{% endif %}
from sqlalchemy.pool import ConnectionPoolEntry

from app.config import PROJECT, Settings
from app.db.admission import connect_deadline
from app.db.errors import DatabaseUnavailableError
from app.db.sqlite import prepare_sqlite
from app.logs import current_route, logger

# A connection that was idle for so many seconds is asked whether it is alive; a
# ping at every checkout would double the cost of a read.
PING_AFTER = 30


def make_engine(settings: Settings, *, read_only: bool = False) -> AsyncEngine:
    """Return an engine that has connected to nothing yet.

    With `read_only` the database refuses to write.
    """
    options: dict[str, Any] = {
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_pool_timeout or 86_400,
        "pool_recycle": settings.database_pool_recycle or -1,
        "echo": settings.database_echo,
        "hide_parameters": settings.environment == "production",
    }
    if settings.is_sqlite:
        url = settings.url.set(drivername="{{ 'sqlite+aiosqlite' if cookiecutter.io == 'async' else 'sqlite+pysqlite' }}")
    else:
        url, options["connect_args"] = _postgresql(settings, read_only=read_only)
    engine = create_async_engine(url, **options)
    if settings.is_sqlite:
        prepare_sqlite(engine.sync_engine, settings, read_only=read_only)
    elif settings.database_pooler == "transaction":
        _set_parameters_in_each_transaction(engine.sync_engine, settings)
    _connect_in_time(engine.sync_engine, settings)
    _notice_dead_connections(engine.sync_engine)
    _warn_when_held_long(engine.sync_engine, settings)
    return engine


def _parameters(settings: Settings) -> dict[str, str]:
    """Return what holds in every session, by PostgreSQL's names."""
    timeouts = {
        "statement_timeout": settings.database_statement_timeout,
        "lock_timeout": settings.database_lock_timeout,
        "idle_in_transaction_session_timeout": (
            settings.database_idle_in_transaction_timeout
        ),
    }
    # PostgreSQL counts milliseconds; 0 is no timeout there as well.
    parameters = {name: str(round(s * 1_000)) for name, s in timeouts.items()}
    return parameters | {"TimeZone": "UTC"}


def _postgresql(settings: Settings, *, read_only: bool) -> tuple[URL, dict[str, Any]]:
    """Return URL and arguments for the driver, from a URL as a host hands it out."""
    pooled = settings.database_pooler == "transaction"
    # What is sent when connecting costs no round trip, and holds for every statement.
    # A transaction pooler refuses it: see _set_parameters_in_each_transaction.
    parameters = {} if pooled else _parameters(settings)
    if read_only and not pooled:
        parameters["default_transaction_read_only"] = "on"
    query = dict(settings.url.query)
    query.pop("connect_timeout", None)
    query.setdefault("application_name", PROJECT["name"][:63])
{% if cookiecutter.io == 'async' %}
    # asyncpg knows libpq's parameters (sslmode, sslrootcert, …) in a DSN only, and
    # channel_binding not at all.
    query.pop("channel_binding", None)
    url = settings.url.set(drivername="postgresql+asyncpg", query={})
    dsn = settings.url.set(drivername="postgresql", query=query)
    arguments: dict[str, Any] = {
        "dsn": dsn.render_as_string(hide_password=False),
        "server_settings": parameters,
    }
    if pooled:
        # Named statements live on one server connection, and the next transaction
        # may run on another.
        arguments |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
{% else %}
    options = [str(query.pop("options", ""))]
    options += [f"-c {name}={value}" for name, value in parameters.items()]
    url = settings.url.set(drivername="postgresql+psycopg", query=query)
    arguments: dict[str, Any] = {"options": " ".join(options).strip()}
    if pooled:
        # Named statements live on one server connection, and the next transaction
        # may run on another.
        arguments["prepare_threshold"] = None
{% endif %}
    return url, arguments


def _set_parameters_in_each_transaction(engine: Engine, settings: Settings) -> None:
    """Set behind a transaction pooler what is otherwise set when connecting.

    `true` is SET LOCAL: a plain SET would stay for the next client of the server's
    connection, whoever that is.
    """
    parameters = _parameters(settings)
    calls = (f"set_config('{name}', :{name}, true)" for name in parameters)
    statement = text(f"SELECT {', '.join(calls)}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.execute(statement, parameters)


def _connect_in_time(engine: Engine, settings: Settings) -> None:
    """Connect within the timeout and within the deadline of the request's admission.

    Drivers report a failed connect in a dozen ways, raw ones among them; here it is
    always `DatabaseUnavailableError`, with the driver's own error as its cause.
    """

    @event.listens_for(engine, "do_connect")
    def do_connect(
        dialect: Dialect,
        _entry: ConnectionPoolEntry,
        args: Any,
        kwargs: Any,
    ) -> DBAPIConnection:
        limits = [settings.database_connect_timeout or 86_400.0]
        if deadline := connect_deadline.get(None):
            limits.append(deadline - time.monotonic())
{% if cookiecutter.io == 'async' %}
        if dialect.name == "postgresql":
            kwargs["timeout"] = max(min(limits), 0.001)
{% else %}
        if dialect.name == "postgresql":
            # libpq counts whole seconds, and makes two of one.
            kwargs["connect_timeout"] = max(math.ceil(min(limits)), 2)
{% endif %}
        try:
            return dialect.connect(*args, **kwargs)
        except Exception as error:
            raise DatabaseUnavailableError("cannot connect") from error


def _notice_dead_connections(engine: Engine) -> None:
    """Replace a connection that died in the pool before anybody uses it."""

    @event.listens_for(engine, "checkin")
    def checkin(
        _connection: DBAPIConnection | None,
        entry: ConnectionPoolEntry,
    ) -> None:
        entry.info["idle since"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def checkout(
        connection: DBAPIConnection,
        entry: ConnectionPoolEntry,
        _proxy: object,
    ) -> None:
        if engine.dialect.name != "postgresql":
            return
        idle_since = entry.info.get("idle since", time.monotonic())
        if _is_suspect(connection) or time.monotonic() - idle_since > PING_AFTER:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise DisconnectionError("died while it was idle") from error


{% if cookiecutter.io == 'async' %}
def _is_suspect(connection: Any) -> bool:
    # The event loop hears of the end of a connection while nobody uses it.
    return bool(connection.driver_connection.is_closed())
{% else %}
def _is_suspect(connection: Any) -> bool:
    # An idle connection has nothing to say: what can be read is the server's farewell.
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(timeout=0))
{% endif %}


def _warn_when_held_long(engine: Engine, settings: Settings) -> None:
    """Log who held a connection for longer than a setting (S5)."""
    limit = settings.database_held_warning
    if not limit:
        return

    @event.listens_for(engine, "checkout")
    def checkout(
        _connection: DBAPIConnection,
        entry: ConnectionPoolEntry,
        _proxy: object,
    ) -> None:
        entry.info["held since"] = time.monotonic()

    @event.listens_for(engine, "checkin")
    def checkin(
        _connection: DBAPIConnection | None,
        entry: ConnectionPoolEntry,
    ) -> None:
        held = time.monotonic() - entry.info.pop("held since", time.monotonic())
        if held > limit:
            logger.warning("connection held for %.1f s by %s", held, current_route())
{% endblock %}
