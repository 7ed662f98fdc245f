{% extends "async.jinja" %}
{% block code %}
"""Times, versions and constraints: models behave alike on each database."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from types import new_class
from typing import Any

import pytest
from httpx2 import Response
from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    UniqueConstraint,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError
from starlette.testclient import TestClient

from app.config import Settings
from app.db import base, errors
from app.db.database import Database
from app.db.session import WriteSession
from app.db.tables import CURRENT_TIMESTAMP, BigId, set_defaults, utc_now
from app.dependencies import ReadDep, WriteDep
from app.routing import Router
from app.schemas import UTCTime
from tests.session.conftest import serve_routers
from tests.session.probe import unit
from tests.support import empty_tables, recorded_selects, run, run_on

router = Router(prefix="/events")

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    """The base of the tests' own model, apart from the app's."""

    metadata = MetaData()


set_defaults(Base.metadata)


class Event(Base):
    """Something that happens; `version` counts its changes."""

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("name", "place", info={"detail": "It happens there already."}),
        CheckConstraint("length(name) < 9", name="short", info={"detail": "Too long."}),
        Index(
            "ix_events_abs_rank",
            text("abs(rank)"),
            unique=True,
            info={"detail": "Rank used."},
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(default="name")
    place: Mapped[str | None] = mapped_column()
    code: Mapped[int | None] = mapped_column(unique=True, info={"detail": "Code used."})
    seat: Mapped[int | None] = mapped_column(
        index=True, unique=True, info={"detail": "Seat used."}
    )
    rank: Mapped[int | None] = mapped_column()
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("events.id"), index=True)
    starts_at: Mapped[datetime] = mapped_column(default=NEW_YEAR)
    updated_at: Mapped[datetime] = mapped_column(
        default=utc_now, onupdate=utc_now, server_default=CURRENT_TIMESTAMP
    )
    version: Mapped[int] = mapped_column()

    __mapper_args__ = {"version_id_col": version}  # noqa: RUF012


EVENTS = Base.metadata.tables["events"]


# A model of the app's own base, in either ORM, apart from the app's tables.
OTHERS = MetaData()
set_defaults(OTHERS)
Stamped: Any = new_class(
    "Stamped",
    (base.Updated, base.Versioned, base.Base),
    {"table": True} if hasattr(base.Base, "model_fields") else {},
    lambda body: body.update(
        __module__=__name__, __tablename__="test_stamped", metadata=OTHERS
    ),
)


class EventIn(BaseModel):
    """An event to store."""

    name: str = "name"
    place: str | None = None
    code: int | None = None
    seat: int | None = None
    rank: int | None = None
    parent_id: int | None = None
    starts_at: UTCTime = NEW_YEAR


class EventOut(BaseModel):
    """A stored event."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    starts_at: datetime
    updated_at: datetime


@router.post("", status_code=201, response_model=EventOut)
async def save(db: WriteDep, data: EventIn) -> Event:
    """Save an event."""
    async with unit(db) as session:
        return await add(session, **data.model_dump())


@router.get("/{id}", response_model=EventOut)
async def show(db: ReadDep, id: int) -> Event:
    """Show an event."""
    return await db.get_one(Event, id)


@router.put("/{id}/late")
async def change_late(db: WriteDep, id: int) -> None:
    """Change an event as it was before somebody else changed it."""
    async with unit(db) as session:
        changed = await session.get_one(Event, id)
        table = EVENTS.c
        connection = await session.connection()
        await connection.execute(
            update(EVENTS).where(table.id == id).values(version=table.version + 1)
        )
        changed.name = "late"
        await session.flush()


async def add(session: WriteSession, **values: Any) -> Event:
    """Add an event without saving it."""
    stored = Event(**values)
    session.add(stored)
    await session.flush()
    return stored


@pytest.fixture(scope="module")
def event_settings(settings: Settings) -> Settings:
    """Give settings with a database that has the table of events."""
    run(run_on, settings, Base.metadata.create_all)
    run(run_on, settings, OTHERS.create_all)
    return settings


@pytest.fixture(scope="module")
def events(event_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with the events' endpoints."""
    with serve_routers(event_settings, router, tables=[EVENTS]) as client:
        yield client


@pytest.fixture
async def database(event_settings: Settings) -> AsyncIterator[Database]:
    """Give a database with the table of events."""
    async with Database(event_settings) as database:
        yield database
        await empty_tables(database, [EVENTS, *OTHERS.sorted_tables])


def post(client: TestClient, **event: Any) -> Response:
    return client.post("/events", json=event)


def test_a_time_is_shown_in_utc_at_once_and_later(events: TestClient) -> None:
    saved = post(events, starts_at="2026-01-02T03:04:05.123456+02:00")
    assert saved.status_code == 201, saved.text
    shown = events.get(f"/events/{saved.json()['id']}")
    assert saved.json() == shown.json()
    assert shown.json()["starts_at"] == "2026-01-02T01:04:05.123456Z"
    assert shown.json()["updated_at"].endswith("Z")


@pytest.mark.parametrize(
    "time",
    ["2026-01-02T03:04:05", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"],
)
def test_a_time_that_is_none_in_utc_is_422(events: TestClient, time: str) -> None:
    assert post(events, starts_at=time).status_code == 422


async def test_a_time_without_zone_is_refused(database: Database) -> None:
    async with database.write() as session:
        with pytest.raises(StatementError, match=r"no time zone: use utc_now\(\)"):
            await add(session, starts_at=datetime(2026, 1, 1))  # noqa: DTZ001
        await session.rollback()


async def test_a_statement_with_times_is_compiled_once(database: Database) -> None:
    compiled: dict[Any, Any] = {}
    async with database.write_engine.begin() as connection:
        cached = await connection.execution_options(compiled_cache=compiled)
        await cached.execute(select(EVENTS).where(EVENTS.c.starts_at < NEW_YEAR))
    assert len(compiled) == 1


async def test_times_are_compared_as_what_they_are(database: Database) -> None:
    west = NEW_YEAR.astimezone(timezone(timedelta(hours=-5)))
    async with database.write() as session:
        await add(session, starts_at=west + timedelta(microseconds=1))
        late = select(EVENTS.c.starts_at).where(EVENTS.c.starts_at > west)
        assert await session.scalar(late) == NEW_YEAR + timedelta(microseconds=1)
        # SQLite has no intervals.
        if database.write_engine.dialect.name == "postgresql":
            late = late.where(EVENTS.c.starts_at - timedelta(days=1) < west)
            assert await session.scalar(late) is not None
        await session.rollback()


def test_what_each_row_has_may_not_be_null() -> None:
    assert not [each.name for each in Stamped.__table__.columns if each.nullable]


async def test_the_database_has_a_default_of_its_own(database: Database) -> None:
    statement = text(
        "INSERT INTO events (name, starts_at, version) VALUES"
        " ('plain', CURRENT_TIMESTAMP, 1)"
    )
    async with database.write() as session:
        connection = await session.connection()
        await connection.execute(statement)
        stored = (await connection.execute(select(EVENTS))).one()
        await session.rollback()
    for time in (stored.starts_at, stored.updated_at):
        assert time.tzinfo is UTC
        assert abs(utc_now() - time) < timedelta(minutes=1)


async def test_a_change_tells_its_time_without_another_statement(
    database: Database,
) -> None:
    async with database.write() as session:
        event = await add(session)
        with recorded_selects(database) as selects:
            for name in ("b", "c"):
                before = event.updated_at
                event.name = name
                await session.flush()
                assert before < event.updated_at <= utc_now()
        assert selects == []
        assert await session.scalar(select(EVENTS.c.updated_at)) == event.updated_at
        await session.rollback()


async def test_a_model_counts_its_changes_and_knows_the_last(
    database: Database,
) -> None:
    async with database.write() as session:
        made = Stamped()
        session.add(made)
        await session.commit()
    assert made.version == 1
    assert made.created_at == made.updated_at
    async with database.write() as session:
        changed = await session.get_one(Stamped, made.id)
        changed.created_at = NEW_YEAR
        await session.commit()
    assert changed.version == 2
    assert made.updated_at < changed.updated_at <= utc_now()


async def test_the_database_stamps_what_the_app_does_not_write(
    database: Database,
) -> None:
    async with database.write() as session:
        connection = await session.connection()
        await connection.execute(text("INSERT INTO test_stamped (version) VALUES (1)"))
        stored = await session.scalar(select(Stamped))
        await session.commit()
    assert stored is not None
    for time in (stored.created_at, stored.updated_at):
        assert abs(utc_now() - time) < timedelta(minutes=1)


def test_what_the_database_computes_is_returned_in_any_case() -> None:
    assert Event.__mapper__.eager_defaults is True


def test_a_change_of_what_has_changed_is_409(events: TestClient) -> None:
    event = post(events).json()["id"]
    answer = events.put(f"/events/{event}/late")
    assert (answer.status_code, answer.json()["type"]) == (409, "stale-data")
    assert not errors.is_retryable(StaleDataError())


BROKEN: list[tuple[dict[str, Any], str | None, str | None]] = [
    ({"place": "a", "code": 2}, "uq_events_name_place", "It happens there already."),
    ({"place": "b", "code": 1}, "uq_events_code", "Code used."),
    ({"seat": 1}, "ix_events_seat", "Seat used."),
    ({"rank": -1}, "ix_events_abs_rank", "Rank used."),
    ({"name": "much too long"}, "ck_events_short", "Too long."),
    ({"parent_id": 2**40}, "fk_events_parent_id_events", None),
    ({"name": None}, None, None),
]


@pytest.mark.parametrize(("values", "name", "_detail"), BROKEN)
async def test_the_constraint_is_known(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    name: str | None,
    _detail: str | None,
) -> None:
    monkeypatch.setattr(errors, "metadata", Base.metadata)
    if "parent_id" in values and database.write_engine.dialect.name == "sqlite":
        name = None
    statement = insert(EVENTS).values(version=1)
    async with database.write() as session:
        connection = await session.connection()
        first = {"name": "name", "place": "a", "code": 1, "seat": 1, "rank": 1}
        await connection.execute(statement.values(**first))
        with pytest.raises(IntegrityError) as caught:
            await connection.execute(statement.values(**{"name": "name"} | values))
        await session.rollback()
    assert errors.constraint_of(caught.value) == name


async def test_of_an_unknown_table_the_columns_are_known(database: Database) -> None:
    async with database.write() as session:
        await add(session, code=1)
        with pytest.raises(IntegrityError) as caught:
            await add(session, code=1)
        await session.rollback()
    names = {"sqlite": "events.code", "postgresql": "uq_events_code"}
    name = errors.constraint_of(caught.value)
    assert name == names[database.write_engine.dialect.name]


def test_nothing_else_has_a_constraint() -> None:
    assert errors.constraint_of(ValueError()) is None
    assert errors.constraint_of(StaleDataError()) is None


@pytest.mark.parametrize(("values", "_name", "detail"), BROKEN[:6])
def test_a_model_says_what_a_client_is_told(
    events: TestClient,
    monkeypatch: pytest.MonkeyPatch,
    values: dict[str, Any],
    _name: str | None,
    detail: str | None,
) -> None:
    monkeypatch.setattr(errors, "metadata", Base.metadata)
    assert post(events, place="a", code=1, seat=1, rank=1).status_code == 201
    answer = post(events, **values)
    assert answer.status_code in {409, 422}
    told = answer.json()["detail"]
    assert told == (detail or told)
    assert "events" not in told
{% endblock %}
