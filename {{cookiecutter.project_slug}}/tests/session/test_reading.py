"""Sessions that only read: the database refuses their writes."""

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("path", ["/notes/while-reading", "/notes/in-snapshot"])
def test_the_database_refuses_to_write(probe: TestClient, path: str) -> None:
    assert probe.post(path, json={}).status_code == 500
    assert probe.get("/notes").text == "0"


@pytest.mark.parametrize("path", ["/notes/while-reading", "/notes/in-snapshot"])
def test_reading_leaves_write_sessions_alone(probe: TestClient, path: str) -> None:
    for number in range(5):
        probe.post(path, json={})
        response = probe.post("/notes", json={"text": f"note {number}"})
        assert response.status_code == 201


def test_statements_of_a_snapshot_see_one_state(probe: TestClient) -> None:
    response = probe.get("/notes/around/meanwhile")
    assert (response.status_code, response.text) == (200, "0")
    assert probe.get("/notes").text == "1"


def test_a_second_statement_needs_a_snapshot(
    probe: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert probe.get("/notes/twice").status_code == 500
    assert "SnapshotDep" in caplog.text
