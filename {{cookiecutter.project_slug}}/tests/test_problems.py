"""Errors have one shape, and tell clients no SQL, host name or traceback."""

import asyncio
import json
import re
from typing import Annotated, Any

import pytest
from fastapi import Depends, Request, WebSocket
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from app.config import PROJECT, PYPROJECT
from app.middleware import ErrorMiddleware
from app.problems import NotFoundError, ProblemAPI
from app.routing import Router
from app.schemas import Body, Text
from app.streaming import JsonLines, TooOldError

router = Router(prefix="/bodies")


class Person(Body):
    """What a client of JavaScript sends."""

    model_config = ConfigDict(alias_generator=to_camel)

    first_name: Annotated[Text, Field(min_length=1, max_length=5)]
    nick_names: list[Text] = Field(default_factory=list)


class LenientPerson(Person):
    """What may have fields that nobody knows."""

    model_config = ConfigDict(extra="ignore")


def read_person(person: Person) -> Person:
    """Read the body as a dependency does."""
    return person


@router.post("/strict")
def add_person(person: Person, _same: Annotated[Person, Depends(read_person)]) -> str:
    """Return the person's name."""
    return person.first_name


@router.post("/lenient")
def add_anyhow(person: LenientPerson) -> str:
    """Return the person's name."""
    return person.first_name


@pytest.fixture
def bodies() -> TestClient:
    """Give a client of an app that has nothing but the endpoints above."""
    app = ProblemAPI()
    app.include_router(router)
    return TestClient(app)


def errors_of(client: TestClient, body: object) -> list[tuple[str, str]]:
    """Return the name of each wrong field, and what is wrong."""
    headers = {"Content-Type": "application/json"}
    content = json.dumps(body)  # as ASCII: half of a surrogate pair is possible
    response = client.post("/bodies/strict", content=content, headers=headers)
    assert response.status_code == 422
    errors = response.json()["errors"]
    assert all(each["loc"][0] == "body" for each in errors)
    return [(each["loc"][-1], each["msg"]) for each in errors]


def test_a_body_may_have_aliases(bodies: TestClient) -> None:
    body = {"firstName": "Ada", "nickNames": ["A."]}
    response = bodies.post("/bodies/strict", json=body)
    assert (response.status_code, response.json()) == (200, "Ada")


UNKNOWN = "Extra inputs are not permitted"


def test_each_wrong_field_is_named_once(bodies: TestClient) -> None:
    assert errors_of(bodies, {"nickNames": [], "fistName": "Ada", "age": 36}) == [
        ("firstName", "Field required"),
        ("fistName", UNKNOWN),
        ("age", UNKNOWN),
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "String should have at least 1 character"),
        ("x" * 6, "String should have at most 5 characters"),
        ("\0", "String should match pattern '^[^\\x00]*$'"),
        ("\ud800", "Input should be a valid string, unable to parse raw data"),
    ],
)
def test_texts_have_characters(bodies: TestClient, name: str, message: str) -> None:
    ((field, found),) = errors_of(bodies, {"firstName": name})
    assert field == "firstName"
    assert found.startswith(message)


def test_very_many_or_long_unknown_fields_make_a_short_answer(
    bodies: TestClient,
) -> None:
    many: dict[str, Any] = {str(number): 1 for number in range(10_000)}
    assert errors_of(bodies, many) == [
        ("body", "Value error, must have at most 22 fields")
    ]
    wrong = {"firstName": "Ada", "nickNames": [1] * 100}
    assert len(errors_of(bodies, wrong)) == 20
    long = "x" * 10_000
    assert errors_of(bodies, {"firstName": "Ada", long: 1}) == [(long[:100], UNKNOWN)]


def test_a_body_may_ignore_unknown_fields(bodies: TestClient) -> None:
    body: dict[str, Any] = {str(number): 1 for number in range(100)}
    response = bodies.post("/bodies/lenient", json=body | {"firstName": "Ada"})
    assert (response.status_code, response.json()) == (200, "Ada")


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
    assert response.json()["info"] == {
        "title": PYPROJECT["tool"]["app"]["title"],
        "description": PROJECT["description"],
        "version": PROJECT["version"],
    }
    assert response.json()["paths"]["/health/live"]["get"]["tags"] == ["health"]


def test_a_problem_is_described_once(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    problem = {"$ref": "#/components/schemas/Problem"}
    operations = [each for path in document["paths"].values() for each in path.values()]
    for each in operations:
        assert {"413", "422", "500", "503", "504"} <= {*each["responses"]}, each
        assert "400" in each["responses"] or "requestBody" not in each, each
        assert "401" in each["responses"] or "security" not in each, each
    errors = [
        response["content"]
        for operation in operations
        for status, response in operation["responses"].items()
        if status >= "400"
    ]
    assert errors
    for each in errors:
        assert each == {"application/problem+json": {"schema": problem}}
    fields = document["components"]["schemas"]["Problem"]["properties"]
    undescribed = {name for name in fields if "description" not in fields[name]}
    assert undescribed == {"status"}


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
        response = client.request("GET", path, content=b"x" * 1_048_577)
        assert response.status_code == 413
        assert response.headers["Content-Type"] == "application/problem+json"


def test_a_method_that_is_not_allowed_names_those_that_are(client: TestClient) -> None:
    assert client.delete("/health/live").headers["Allow"] == "GET, HEAD"


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


async def test_a_request_that_the_shutdown_cancels_may_be_tried_again() -> None:
    begun, sent = asyncio.Event(), list[Message]()

    async def hang(_scope: Scope, _receive: Receive, _send: Send) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "http", "path": "/things", "headers": [], "state": {}}
    serving = asyncio.create_task(ErrorMiddleware(hang, 1)(scope, receive, send))
    await begun.wait()
    serving.cancel()
    await asyncio.wait({serving})
    assert serving.cancelled()
    start, body = sent
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"retry-after"].isdigit()
    assert json.loads(body["body"])["type"] == "shutting-down"


def test_a_stream_is_refused_to_http_1_0() -> None:
    request = Request({"type": "http", "http_version": "1.0"})
    lines: Any = iter(())
    with pytest.raises(TooOldError) as refused:
        JsonLines(request, lines)
    assert refused.value.status == 505


async def break_off(socket: WebSocket) -> None:
    """Accept a WebSocket, and fail."""
    await socket.accept()
    raise NotFoundError("There is no such thing.")


def test_an_error_closes_a_websocket(caplog: pytest.LogCaptureFixture) -> None:
    app = ProblemAPI()
    app.add_api_websocket_route("/things/{id}", break_off)
    with TestClient(app).websocket_connect("/things/1") as socket:
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 1011
    assert "WebSocket /things/{id} failed" in caplog.text
