{% extends "async.jinja" %}
{% block code %}
"""Engines and their pools, made from the settings."""

from typing import Any

{% if cookiecutter.io == 'async' %}
from sqlalchemy import URL, Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
{% else %}
from sqlalchemy import URL, Connection, Engine, create_engine, event
{% endif %}

from app.config import PROJECT, Settings
from app.db.driver import SQLITE_DRIVER, connect_arguments
from app.db.pool import connect_in_time, watch_connections
from app.db.schema_changes import survive_schema_changes
from app.db.sqlite import prepare_sqlite
from app.db.timeouts import set_local, timeout_parameters
from app.db.transaction_errors import (
    classify_read_errors,
    classify_transaction_errors,
    give_up_standbys,
)


def make_engine(
    settings: Settings, *, read_only: bool = False, replica: bool = False
) -> AsyncEngine:
    """Return an engine that has connected to nothing yet.

    With `read_only` the database refuses to write. With `replica` it is
    DATABASE_REPLICA_URL's, if that is set.
    """
    url = settings.url_of("database_replica_url" if replica else "database_url")
    options: dict[str, Any] = {
        "pool_size": settings.database_pool_size,
        "max_overflow": settings.database_max_overflow,
        "pool_timeout": settings.database_pool_timeout or 86_400,
        "pool_recycle": settings.database_pool_recycle or -1,
        "echo": settings.database_echo,
        # Parameters may be secrets; an echo is asked for to see them.
        "hide_parameters": not settings.database_echo,
    }
    if settings.is_sqlite:
        engine = create_async_engine(url.set(drivername=SQLITE_DRIVER), **options)
        prepare_sqlite(engine.sync_engine, settings, read_only=read_only)
        connect_in_time(engine.sync_engine, settings, [{}])
    else:
        servers = _servers(url, read_only=read_only)
        url, options["connect_args"] = _postgresql(url, settings, read_only=read_only)
        engine = create_async_engine(url, **options)
        connect_in_time(engine.sync_engine, settings, servers)
        if not read_only:
            give_up_standbys(engine.sync_engine)
    if settings.database_pooler == "transaction":
        _set_parameters_in_each_transaction(engine.sync_engine, settings)
    if read_only:
        classify_read_errors(engine.sync_engine)
    else:
        classify_transaction_errors(engine.sync_engine)
    # Last: it runs a statement itself, and SQLAlchemy asks no listener after it.
    if not settings.is_sqlite and settings.database_pooler == "none":
        survive_schema_changes(engine.sync_engine)
    watch_connections(engine.sync_engine, settings)
    return engine


def _parameters(settings: Settings) -> dict[str, str]:
    """Return what holds in every session, by PostgreSQL's names."""
    timeouts = timeout_parameters(
        statement=settings.database_statement_timeout,
        lock=settings.database_lock_timeout,
        idle_in_transaction=settings.database_idle_in_transaction_timeout,
    )
    return timeouts | {"TimeZone": "UTC"}


def _servers(url: URL, *, read_only: bool) -> list[dict[str, Any]]:
    """Return the driver's arguments for each server to try, in turn.

    Drivers take several hosts as well, but a silent one may use up the time of all,
    so that a failover is never found.
    """
    role = str(url.query.get("target_session_attrs", "any"))
    if read_only:
        # All of its sessions are read-only, on a primary too.
        role = {"read-write": "primary", "read-only": "standby"}.get(role, role)
    servers: list[dict[str, Any]] = [{}]
    if "," in (hosts := str(url.query.get("host", ""))):
        ports = str(url.query["port"]).split(",")
        servers = [
            {"host": host, "port": int(port)}
            for host, port in zip(hosts.split(","), ports, strict=True)
        ]
    if role == "prefer-standby":
        # The first host comes last: it is probably the standby that is down.
        attempts = [("standby", each) for each in servers]
        attempts += [("any", each) for each in reversed(servers)]
    else:
        attempts = [(role, each) for each in servers]
    return [{**each, "target_session_attrs": role} for role, each in attempts]


def _postgresql(
    url: URL, settings: Settings, *, read_only: bool
) -> tuple[URL, dict[str, Any]]:
    """Return URL and arguments for the driver, from a URL as a host hands it out."""
    pooled = settings.database_pooler == "transaction"
    # What is sent when connecting costs no round trip, and holds for every statement.
    # A transaction pooler refuses it: see _set_parameters_in_each_transaction.
    parameters = {} if pooled else _parameters(settings)
    if read_only and not pooled:
        parameters["default_transaction_read_only"] = "on"
    query = dict(url.query)
    query.pop("connect_timeout", None)
    query.pop("target_session_attrs", None)
    if "," in query.get("host", ""):
        del query["host"], query["port"]
    query.setdefault("application_name", PROJECT["name"][:63])
    url = url.set(query=query)
    return connect_arguments(url, parameters, pooled=pooled)


def _set_parameters_in_each_transaction(engine: Engine, settings: Settings) -> None:
    """Set behind a transaction pooler what is otherwise set when connecting."""
    statement = set_local(_parameters(settings))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.execute(statement)
{% endblock %}
