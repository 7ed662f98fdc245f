{% extends "async.jinja" %}
{% block code %}
"""The request's session. An endpoint takes one kind, by its alias (S2).

`scope="function"` ends the session before the answer is sent: nobody hears "done"
before the commit has succeeded. FastAPI's default would end it afterwards (S1), as only
a stream wants it, which saves nothing.
"""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request

{% if cookiecutter.pattern == 'unit_of_work' and cookiecutter.commit == 'manual' %}
from app.db.changes import forgive_discarded_changes
{% endif %}
from app.db.places import (
    get_database,
    is_error_answer,
    take_read_place,
    take_stream_place,
    take_write_place,
)
{% if cookiecutter.pattern == 'unit_of_work' %}
from app.db.session import ReadSession
from app.db.unit_of_work import UnitOfWork
{% else %}
from app.db.session import ReadSession, WriteSession
{% endif %}

_WritePlace = Annotated[None, Depends(take_write_place, scope="function")]
_ReadPlace = Annotated[None, Depends(take_read_place, scope="function")]
_StreamPlace = Annotated[None, Depends(take_stream_place, scope="request")]

{% if cookiecutter.pattern == 'unit_of_work' %}

async def get_unit_of_work(
    request: Request,
    _place: _WritePlace,
) -> AsyncIterator[UnitOfWork]:
    """Give the request its unit of work; an error answer discards what is undecided."""
    async with get_database(request).write() as session:
        uow = UnitOfWork(session)
        yield uow
        if is_error_answer(request):
            await uow.rollback()
{% endif %}
{% if cookiecutter.pattern == 'unit_of_work' and cookiecutter.commit == 'manual' %}
            forgive_discarded_changes(session.sync_session)
{% endif %}
{% if cookiecutter.pattern == 'repository' %}

async def get_write_session(
    request: Request,
    _place: _WritePlace,
) -> AsyncIterator[WriteSession]:
    """Give the request its session; an error answer saves nothing."""
    async with get_database(request).write() as session:
        yield session
        if is_error_answer(request):
            await session.rollback()
{% endif %}


async def get_read_session(
    request: Request,
    _place: _ReadPlace,
) -> AsyncIterator[ReadSession]:
    """Give the request a session for one reading statement."""
    async with get_database(request).read() as session:
        yield session


async def get_snapshot(
    request: Request,
    _place: _ReadPlace,
) -> AsyncIterator[ReadSession]:
    """Give the request a session for several reading statements of one moment."""
    async with get_database(request).snapshot() as session:
        yield session


async def get_stream_session(
    request: Request,
    _place: _StreamPlace,
) -> AsyncIterator[ReadSession]:
    """Give a session that sees one moment, and lives as long as the answer (S13)."""
    async with get_database(request).snapshot() as session:
        # Connected now, a failure is still an answer of its own.
        await session.connection()
        yield session


{% if cookiecutter.pattern == 'unit_of_work' %}
WriteDep = Annotated[UnitOfWork, Depends(get_unit_of_work, scope="function")]
{% else %}
WriteDep = Annotated[WriteSession, Depends(get_write_session, scope="function")]
{% endif %}
ReadDep = Annotated[ReadSession, Depends(get_read_session, scope="function")]
SnapshotDep = Annotated[ReadSession, Depends(get_snapshot, scope="function")]
StreamDep = Annotated[ReadSession, Depends(get_stream_session, scope="request")]
{% endblock %}
