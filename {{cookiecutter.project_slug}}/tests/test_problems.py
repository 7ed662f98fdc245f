"""Errors have one shape, and tell clients no SQL, host name or traceback."""

import logging

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/health/live/", 404),
        ("DELETE", "/health/live", 405),
    ],
)
def test_every_error_is_a_problem(
    client: TestClient, method: str, path: str, status: int
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance"}
    assert (problem["status"], problem["instance"]) == (status, path)


def test_the_interface_is_documented(client: TestClient) -> None:
    response = client.get("/openapi.json")
    assert response.status_code == 200
    assert "/health/live" in response.json()["paths"]


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    for path in ("/nothing/here", "/health/live"):
        response = client.request("GET", path, content=b"x" * 1_048_577)
        assert response.status_code == 413
        assert response.headers["Content-Type"] == "application/problem+json"


def test_a_method_that_is_not_allowed_names_those_that_are(client: TestClient) -> None:
    assert client.delete("/health/live").headers["Allow"] == "GET"


def test_every_response_has_the_request_id(client: TestClient) -> None:
    for path in ("/health/live", "/nothing/here"):
        given = client.get(path, headers={"X-Request-ID": "my-id.1"})
        assert given.headers["X-Request-ID"] == "my-id.1"
        made = client.get(path).headers["X-Request-ID"]
        assert len(made) == 32
        assert client.get(path).headers["X-Request-ID"] != made


def test_a_request_id_that_could_forge_the_log_is_replaced(client: TestClient) -> None:
    for forged in ("two words", "x" * 65, "a;b"):
        response = client.get("/health/live", headers={"X-Request-ID": forged})
        assert response.headers["X-Request-ID"] != forged


def test_log_lines_have_the_request_id(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    handler = next(iter(logging.getLogger("app").handlers))
    caplog.handler.addFilter(handler.filters[0])
    caplog.set_level(logging.ERROR, "app")
    app = client.app
    assert isinstance(app, FastAPI)
    database, app.state.database = app.state.database, None
    client.get("/health/ready", headers={"X-Request-ID": "find-me"})
    app.state.database = database
    assert {getattr(record, "request_id", None) for record in caplog.records} == {
        "find-me"
    }
