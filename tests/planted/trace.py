"""What a request does to slot, transaction and response, in the order of doing it."""

import asyncio
import inspect
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fastapi import Response
from sqlalchemy import event
from starlette.testclient import TestClient

from app.config import Settings
from app.db.admission import Admission
from app.dependencies import WriteDep
from app.main import create_app
from tests.conftest import serve
from tests.session import probe as notes
from tests.session.conftest import TABLE

TRACES = Path(os.environ["TRACES"])
happened: list[str] = []

if inspect.iscoroutinefunction(notes.add):

    @notes.router.post("/settled/{status}", response_model=None)
    async def settle(db: WriteDep, status: int) -> Response:
        """Change something, leave the block if there is one, and return a response."""
        async with notes.block(db):
            await notes.add(notes.session_of(db), notes.NoteIn())
        return Response(status_code=status)

else:

    @notes.router.post("/settled/{status}", response_model=None)
    def settle(db: WriteDep, status: int) -> Response:
        """Change something, leave the block if there is one, and return a response."""
        with notes.block(db):
            notes.add(notes.session_of(db), notes.NoteIn())
        return Response(status_code=status)


@pytest.fixture
def client(
    notes_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """Give a client of a test app that notes what happens."""
    enter, leave = Admission.__aenter__, Admission.__aexit__

    async def enter_noting(self: Admission) -> None:
        await enter(self)
        happened.append("slot")

    async def leave_noting(self: Admission, *args: object) -> None:
        happened.append("slot back")
        await leave(self, *args)

    monkeypatch.setattr(Admission, "__aenter__", enter_noting)
    monkeypatch.setattr(Admission, "__aexit__", leave_noting)
    app = create_app(notes_settings)
    app.include_router(notes.router)
    with serve(app, [TABLE]) as client:
        engine = app.state.database.write_engine
        engine = getattr(engine, "sync_engine", engine)
        for name in ("begin", "commit", "rollback"):

            def listen(*_: object, name: str = name) -> None:
                happened.append(name)

            event.listen(engine, name, listen)
        yield client


def note_responses(app: Any) -> Any:
    """Wrap an application, so that the start of a response is noted."""

    async def noting(scope: Any, receive: Any, send: Any) -> None:
        async def send_noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                happened.append(f"response {message['status']}")
            await send(message)

        await app(scope, receive, send_noting)

    return noting


async def post(app: Any, path: str, body: Any, *, leaves: bool) -> None:
    """Send a request, whose client is gone once the body was read."""
    messages: list[Any] = [
        {"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}
    ]

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        if not leaves:
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(_: Any) -> None:
        if leaves:
            raise OSError("the client is gone")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("testserver", 80),
        "client": ("testclient", 50000),
        "headers": [(b"content-type", b"application/json")],
        "state": {},
    }
    with suppress(OSError):
        await note_responses(app)(scope, receive, send)


CASES = {
    "commit": ("/notes", {}),
    "exception": ("/notes/raise/409", {}),
    "returned": ("/notes/settled/409", {}),
    "failing": ("/notes", {"text": "orphan", "parent_id": 1_000_000}),
    "leaving": ("/notes", {"text": "left"}),
    "forgotten": (f"/notes/{os.environ['FORGOTTEN']}/201", {"text": "forgotten"}),
}


@pytest.mark.parametrize("case", CASES)
def test_trace(client: TestClient, case: str) -> None:
    path, body = CASES[case]
    happened.clear()
    portal = client.portal
    assert portal is not None
    leaves = case == "leaving"

    async def request() -> None:
        await post(client.app, path, body, leaves=leaves)

    portal.call(request)
    (TRACES / f"{case}.json").write_text(json.dumps(happened), encoding="utf-8")


def test_trace_of_a_full_pool(client: TestClient) -> None:
    portal = client.portal
    assert portal is not None
    admission = client.app.state.database.write_admission  # type: ignore[attr-defined]

    async def fill_and_ask() -> None:
        async with admission, admission:
            happened.clear()
            await post(client.app, "/notes", {}, leaves=False)
            (TRACES / "full.json").write_text(json.dumps(happened), encoding="utf-8")

    portal.call(fill_and_ask)
