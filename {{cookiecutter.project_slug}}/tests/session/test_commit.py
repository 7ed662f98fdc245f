"""When a transaction commits, and what is stored when it fails."""

import pytest
from starlette.testclient import TestClient

from tests.session import probe as notes

UNKNOWN_PARENT = {"text": "orphan", "parent_id": 1_000_000}


def count(probe: TestClient) -> int:
    response = probe.get("/notes")
    assert response.status_code == 200
    return int(response.text)


def test_a_created_note_can_be_read_at_once(probe: TestClient) -> None:
    for number in range(60):
        response = probe.post("/notes", json={"text": f"note {number}"})
        assert response.status_code == 201
        assert count(probe) == number + 1


def test_a_failed_commit_is_an_error_and_stores_nothing(probe: TestClient) -> None:
    response = probe.post("/notes", json=UNKNOWN_PARENT)
    assert response.status_code == 409
    assert response.json()["type"] == "reference-conflict"
    assert count(probe) == 0


def test_background_tasks_begin_after_the_commit(probe: TestClient) -> None:
    notes.seen.clear()
    assert probe.post("/notes/background", json={}).status_code == 202
    assert notes.seen == [1]


def test_a_failed_commit_starts_no_background_task(probe: TestClient) -> None:
    notes.seen.clear()
    response = probe.post("/notes/background", json=UNKNOWN_PARENT)
    assert response.status_code == 409
    assert notes.seen == []


@pytest.mark.parametrize("status", [404, 499, 503])
def test_an_exception_in_a_service_saves_nothing(
    probe: TestClient, status: int
) -> None:
    response = probe.post(f"/notes/raise/{status}", json={})
    assert response.status_code == status
    assert count(probe) == 0


def test_a_bug_in_a_service_saves_nothing(
    probe: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = probe.post("/notes/raise/0", json={})
    assert "RuntimeError: a bug" in caplog.text
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert "a bug" not in response.text
    assert count(probe) == 0


@pytest.mark.parametrize("status", [400, 409, 500])
def test_a_returned_error_rolls_back_what_is_uncommitted(
    probe: TestClient, status: int
) -> None:
    response = probe.post(f"/notes/undecided/{status}", json={})
    assert response.status_code == status
    assert count(probe) == 0


def test_a_commit_after_a_failed_statement_is_an_error(
    probe: TestClient,
) -> None:
    response = probe.post("/notes/careless?in_savepoint=false", json={})
    assert response.status_code == 500
    assert count(probe) == 0
    # Rolling back to a savepoint clears it, and the connection stays usable.
    response = probe.post("/notes/careless?in_savepoint=true", json={})
    assert response.status_code == 201
    assert count(probe) == 1


{% if cookiecutter.commit == 'auto' and cookiecutter.pattern == 'repository' %}
def test_the_dependency_commits(probe: TestClient) -> None:
    assert probe.post("/notes/undecided/200", json={}).status_code == 200
    assert count(probe) == 1


def test_the_dependency_commits_what_was_not_flushed(probe: TestClient) -> None:
    assert probe.post("/notes/pending", json={}).status_code == 201
    assert count(probe) == 1


def test_the_request_is_the_transaction(probe: TestClient) -> None:
    assert probe.post("/notes/then-raise/418", json={}).status_code == 418
    assert probe.post("/notes/invalid-response", json={}).status_code == 500
    assert count(probe) == 0
{% else %}
@pytest.mark.parametrize("path", ["/notes/undecided/200", "/notes/pending"])
def test_a_forgotten_commit_is_loud(
    probe: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level("ERROR", "app"):
        response = probe.post(path, json={})
    assert response.status_code == 500
    route = path.replace("200", "{status}")
    assert f"POST {route}" in caplog.text
    assert count(probe) == 0


def test_what_was_committed_before_an_error_stays(probe: TestClient) -> None:
    first, second = {"text": "first"}, {"text": "second"}
    assert probe.post("/notes/then-raise/418", json=first).status_code == 418
    assert probe.post("/notes/invalid-response", json=second).status_code == 500
    assert count(probe) == 2
{% endif %}


@pytest.mark.parametrize("path", ["/notes/undone", "/notes/savepoint-only"])
def test_rolled_back_changes_are_not_forgotten(probe: TestClient, path: str) -> None:
    assert probe.post(path, json={}).status_code == 201
    assert count(probe) == 0
