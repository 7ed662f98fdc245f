{% extends "async.jinja" %}
{% block code %}
"""Endpoints of a test app: what a session layer has to survive, on its own table."""

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, nullcontext, suppress
from typing import Any, TypeVar

{% if cookiecutter.io == 'async' %}
from anyio import to_thread
{% else %}
from anyio import from_thread
{% endif %}
from fastapi import BackgroundTasks, HTTPException, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlalchemy import CheckConstraint, ForeignKey, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app.db.database import Database
from app.db.repository import ReadRepository, Repository
from app.db.session import ReadSession, WriteSession
from app.dependencies import ReadDep, SnapshotDep, StreamDep, WriteDep, get_database
from app.routing import Router
from app.streaming import JsonLines

T = TypeVar("T")

router = Router(prefix="/notes")
# A statement that takes too long.
SLOW = text(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
    " WHERE i < 1000000000) SELECT max(i) FROM n"
)
# What `hold` waits for, and `save_slowly`.
gate = threading.Event()
# Whether `save_slowly` has begun.
saving = threading.Event()
# Whether a stream has sent something.
streaming = threading.Event()
# What background tasks have seen.
seen: list[int] = []


class Base(DeclarativeBase):
    """The base of the tests' own model, apart from the app's."""


class Note(Base):
    """A note; only the COMMIT finds out that there is no such parent."""

    __tablename__ = "test_notes"
    __table_args__ = (CheckConstraint("text <> 'forbidden'"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str | None] = mapped_column(unique=True, nullable=False)
    parent_id: Mapped[int | None] = mapped_column(
        ForeignKey("test_notes.id", deferrable=True, initially="DEFERRED")
    )
    parent: Mapped["Note | None"] = relationship(remote_side="Note.id")


class NoteRepository(Repository[Note]):
    """Reads and writes notes."""

    model = Note


class NoteReadRepository(ReadRepository[Note]):
    """Reads notes."""

    model = Note


class NoteIn(BaseModel):
    """A note to store."""

    text: str | None = "note"
    parent_id: int | None = None


class NoteOut(BaseModel):
    """A stored note."""

    id: int
    text: str


{% if cookiecutter.pattern == 'unit_of_work' %}
def session_of(db: WriteDep) -> WriteSession:
    """Return the session itself."""
    return db.session


def block(db: WriteDep) -> WriteDep:
    """Return the block that a service works in."""
    return db
{% else %}
def session_of(db: WriteDep) -> WriteSession:
    """Return the session itself."""
    return db


def block(db: WriteDep) -> nullcontext[WriteDep]:
    """Return the block that a service works in: it needs none."""
    return nullcontext(db)
{% endif %}


@asynccontextmanager
async def unit(db: WriteDep) -> AsyncIterator[WriteSession]:
    """Give the session, and save afterwards as this project's services do."""
    async with block(db):
        yield session_of(db)
{% if cookiecutter.commit == 'manual' %}
        await db.commit()
{% endif %}


{% if cookiecutter.io == 'async' %}
async def run_unit(way: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run a transaction of its own, as an endpoint does."""
    return await way(*args)


async def wait_at_the_gate() -> None:
    """Wait for the gate to open, unless the task is cancelled."""
    await to_thread.run_sync(gate.wait, 10, abandon_on_cancel=True)
{% else %}
def run_unit(way: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run a transaction of its own, as an endpoint does: it waits in the event loop."""
    return from_thread.run(way, *args)


def wait_at_the_gate() -> None:
    """Wait for the gate to open."""
    gate.wait(10)
{% endif %}


async def add(session: WriteSession, note: NoteIn) -> Note:
    """Add a note without saving it."""
    stored = Note(text=note.text, parent_id=note.parent_id)
    session.add(stored)
    await session.flush()
    return stored


async def add_and_commit(database: Database, note: Note) -> None:
    """Save a note in a session of its own."""
    async with database.write() as session:
        session.add(note)
        await session.commit()


async def count(session: ReadSession) -> int:
    """Return how many notes there are."""
    return await session.scalar(select(func.count()).select_from(Note)) or 0


async def count_of(session: ReadSession, text: str) -> int:
    """Return how many notes have this text."""
    query = select(func.count()).where(Note.text == text)
    return await session.scalar(query) or 0


async def count_apart(database: Database) -> int:
    """Return how many notes another session sees."""
    async with database.read() as session:
        return await count(session)


@router.post("", status_code=201, response_model=NoteOut)
async def save(db: WriteDep, note: NoteIn) -> Note:
    """Save a note."""
    async with unit(db) as session:
        return await add(session, note)


async def save_slowly(db: WriteDep, note: NoteIn) -> None:
    """Save a note when the gate opens."""
    async with unit(db) as session:
        await add(session, note)
        saving.set()
        await wait_at_the_gate()


async def rename(db: WriteDep, id: int, text: str) -> bool:
    """Rename a note, and return whether it was still there."""
    async with unit(db) as session:
        notes = NoteRepository(session)
        note = await notes.lock(id)
        if note is not None:
            await notes.update(note, {"text": text})
    return note is not None


async def remove(db: WriteDep, id: int) -> None:
    """Remove a note."""
    async with unit(db) as session:
        await session.delete(await session.get_one(Note, id))


@router.post("/then-raise/{status}")
async def save_then_raise(db: WriteDep, note: NoteIn, status: int) -> None:
    """Fail after the service has returned."""
    async with unit(db) as session:
        await add(session, note)
    raise HTTPException(status)


@router.post("/raise/{status}")
async def raise_inside(db: WriteDep, note: NoteIn, status: int) -> None:
    """Fail inside the service."""
    async with unit(db) as session:
        await add(session, note)
        raise HTTPException(status) if status else RuntimeError("a bug")


async def fail(session: WriteSession, in_savepoint: bool) -> None:
    """Run a statement that fails."""
    async with session.begin_nested() if in_savepoint else nullcontext():
        connection = await session.connection()
        await connection.execute(text("SELECT no_such_column"))


@router.post("/careless", status_code=201)
async def go_on(db: WriteDep, note: NoteIn, in_savepoint: bool) -> None:
    """Save a note after another statement failed."""
    async with unit(db) as session:
        await add(session, note)
        with suppress(DBAPIError):
            await fail(session, in_savepoint)


@router.post("/undecided/{status}", response_model=None)
async def leave_undecided(db: WriteDep, note: NoteIn, status: int) -> Response:
    """Change something, neither commit nor roll back, and return a response."""
    await add(session_of(db), note)
    return Response(status_code=status)


{% if cookiecutter.pattern == 'unit_of_work' and cookiecutter.commit == 'manual' %}
@router.post("/abandoned/{status}", response_model=None)
async def abandon_unit(db: WriteDep, note: NoteIn, status: int) -> Response:
    """Leave the service with neither commit nor rollback, and return a response."""
    async with db:
        await add(db.session, note)
    return Response(status_code=status)


{% endif %}
@router.post("/pending", status_code=201)
async def leave_pending(db: WriteDep, note: NoteIn) -> None:
    """Add something without even sending it."""
    session_of(db).add(Note(text=note.text))


@router.post("/undone", status_code=201)
async def leave_undone(db: WriteDep, note: NoteIn) -> None:
    """Change something and roll back, to a savepoint and then as a whole."""
    session = session_of(db)
    async with session.begin_nested() as savepoint:
        await add(session, note)
        await savepoint.rollback()
    await add(session, note)
    await session.rollback()


@router.post("/savepoint-only", status_code=201)
async def undo_savepoint(db: WriteDep, note: NoteIn) -> None:
    """Roll back the only change, to its savepoint."""
    session = session_of(db)
    async with session.begin_nested() as savepoint:
        await add(session, note)
        await savepoint.rollback()


@router.post("/invalid-response", response_model=NoteOut)
async def respond_with_nonsense(db: WriteDep, note: NoteIn) -> str:
    """Save a note, and return what the schema forbids."""
    async with unit(db) as session:
        await add(session, note)
    return "nonsense"


@router.post("/background", status_code=202)
async def save_then_work(
    request: Request,
    db: WriteDep,
    note: NoteIn,
    tasks: BackgroundTasks,
) -> None:
    """Save a note, then count the notes in the background."""

    async def look() -> None:
        seen.append(await count_apart(get_database(request)))

    async with unit(db) as session:
        await add(session, note)
    tasks.add_task(look)


@router.post("/handed-over")
async def hand_over(db: WriteDep, tasks: BackgroundTasks) -> None:
    """Pass the request's session to a background task."""
    tasks.add_task(count, session_of(db))


@router.get("")
async def list_notes(db: ReadDep) -> int:
    """Count the notes, with one statement."""
    return await count(db)


@router.get("/twice")
async def list_twice(db: ReadDep) -> int:
    """Read with two statements, and no snapshot."""
    return await count(db) + await count(db)


@router.get("/around/{text}")
async def read_around_a_write(request: Request, db: SnapshotDep, text: str) -> int:
    """Count, save a note in another session, count; return the difference."""
    before = await count(db)
    async with get_database(request).write_engine.begin() as connection:
        await connection.execute(insert(Note).values(text=text))
    return await count(db) - before


@router.post("/while-reading")
async def write_while_reading(db: ReadDep, note: NoteIn) -> None:
    """Write where only reading is allowed."""
    db.add(Note(text=note.text))
    await db.flush()


@router.post("/in-snapshot")
async def write_in_snapshot(db: SnapshotDep, note: NoteIn) -> None:
    """Write where only reading is allowed, in a transaction."""
    db.add(Note(text=note.text))
    await db.flush()


@router.get("/hold")
async def hold(db: ReadDep) -> int:
    """Hold a connection until the gate opens."""
    notes = await count(db)
    await wait_at_the_gate()
    return notes


@router.get("/broken-stream")
async def break_stream() -> StreamingResponse:
    """Fail after a part was sent."""

    def chunks() -> Iterator[bytes]:
        yield b"half"
        raise RuntimeError("half of it")

    return StreamingResponse(chunks())


@router.get("/stream")
async def stream(request: Request, db: StreamDep) -> JsonLines:
    """Send the texts of all notes, and then their number, when the gate is open."""
    return JsonLines(request, lines(db))


async def lines(session: ReadSession) -> AsyncIterator[str]:
    """Give the text of each note, and after the gate how many there are."""
    async with NoteReadRepository(session).batches(size=1) as batches:
        async for (note,) in batches:
            yield f"{note.text}\n"
    streaming.set()
    await wait_at_the_gate()
    yield f"{await count(session)}\n"


@router.get("/slow")
async def slow(db: SnapshotDep) -> None:
    """Run a statement that takes too long."""
    await db.connection()
    await db.scalar(SLOW)
{% endblock %}
