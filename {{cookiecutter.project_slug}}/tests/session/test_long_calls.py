"""Between two transactions, an endpoint holds neither slot nor connection."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest
from anyio import to_thread
from fastapi import Request
from starlette.testclient import TestClient

from app.config import Settings
from app.dependencies import get_database
from app.routing import Router
from app.run import run_transaction
from tests.session import probe as notes
from tests.session.conftest import serve_routers
from tests.session.test_admission import database_of

router = Router()
asked = Event()
answered = Event()


@router.post("/notes/{text}/ask")
async def ask(request: Request, text: str) -> bool:
    """Save a note, call a slow service, and rename the note unless it is gone."""
    database = get_database(request)
    note = await run_transaction(database, notes.save, notes.NoteIn(text=text))
    asked.set()
    await to_thread.run_sync(answered.wait, 10)
    return await run_transaction(database, notes.rename, note.id, f"{text}, answered")


@pytest.fixture
def narrow(notes_settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app with a single slot for writing."""
    routers = (router, notes.router)
    with serve_routers(notes_settings, *routers, database_max_overflow=0) as client:
        yield client


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_row_is_checked_again_after_a_long_call(
    narrow: TestClient, is_removed: bool
) -> None:
    asked.clear()
    answered.clear()
    with ThreadPoolExecutor() as threads:
        asking = threads.submit(narrow.post, "/notes/question/ask")
        try:
            assert asked.wait(10)
            database = database_of(narrow)
            assert database.gauges()["write"]["checked_out"] == 0
            assert narrow.get("/notes").json() == 1
            # Other requests use the only connection meanwhile, and change the row.
            other = narrow.post("/notes", json={"text": "other"}).json()["id"]
            assert narrow.portal is not None
            if is_removed:
                narrow.portal.call(run_transaction, database, notes.remove, other - 1)
        finally:
            answered.set()
        assert asking.result().json() is not is_removed
