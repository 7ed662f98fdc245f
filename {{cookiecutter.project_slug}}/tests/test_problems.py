"""Errors have one shape, and say nothing that is not for the client (S18)."""

import re

import pytest
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
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert set(problem) == {"type", "title", "status", "detail", "instance"}
    assert (problem["status"], problem["instance"]) == (status, path)


def test_the_interface_is_documented(client: TestClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200
    assert "/health/live" in answer.json()["paths"]


def test_a_problem_is_described_once(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    problem = {"$ref": "#/components/schemas/Problem"}
    errors = [
        response["content"]
        for path in document["paths"].values()
        for operation in path.values()
        for status, response in operation["responses"].items()
        if status >= "400"
    ]
    assert errors
    for each in errors:
        assert each == {"application/problem+json": {"schema": problem}}
    assert "detail" in document["components"]["schemas"]["Problem"]["properties"]


def test_operations_are_named_as_methods_of_a_client(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    names = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert "get_readiness" in names
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch("[a-z]+(_[a-z]+)+|[a-z]+", name), name


def test_a_body_over_the_limit_is_refused(client: TestClient) -> None:
    for path in ("/nothing/here", "/health/live"):
        answer = client.request("GET", path, content=b"x" * 1_048_577)
        assert answer.status_code == 413
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_method_that_is_not_allowed_names_those_that_are(client: TestClient) -> None:
    assert client.delete("/health/live").headers["Allow"] == "GET, HEAD"


def test_every_answer_has_the_request_id(client: TestClient) -> None:
    for path in ("/health/live", "/nothing/here"):
        given = client.get(path, headers={"X-Request-ID": "my-id.1"})
        assert given.headers["X-Request-ID"] == "my-id.1"
        made = client.get(path).headers["X-Request-ID"]
        assert len(made) == 32
        assert client.get(path).headers["X-Request-ID"] != made


def test_a_request_id_that_could_forge_the_log_is_replaced(client: TestClient) -> None:
    for forged in ("two words", "x" * 65, "a;b"):
        answer = client.get("/health/live", headers={"X-Request-ID": forged})
        assert answer.headers["X-Request-ID"] != forged
