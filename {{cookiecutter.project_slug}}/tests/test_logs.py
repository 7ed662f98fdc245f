"""The log: one format for all, a line for each request, ids on every line."""

import json
import logging.config
import re
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from opentelemetry.sdk.trace import TracerProvider
from starlette.testclient import TestClient
from uvicorn.config import LOGGING_CONFIG

from app.config import Settings
from app.context import route_of
from app.logs import cause_of, configure_logging, handler, logger
from app.main import create_app
from app.problems import ForbiddenError, ProblemError
from app.routing import Router
from app.schemas import PathId
from tests.support import make_settings

Lines = Callable[[], list[str]]

router = Router(prefix="/things")


@router.get("/forbidden")
async def refuse() -> None:
    """Refuse."""
    raise ForbiddenError("Not for you.")


@router.get("/busy")
async def be_busy() -> None:
    """Answer that there is too much to do."""
    error = ProblemError("Too much to do.")
    error.status, error.type = 503, "at-capacity"
    raise error


@router.get("/broken")
async def break_off() -> None:
    """Fail for a reason that the client is told."""
    try:
        raise ValueError("the reason\nand more")
    except ValueError as error:
        raise ProblemError("It is broken.") from error


@router.get("/later")
async def work_later(tasks: BackgroundTasks) -> None:
    """Respond, and log something afterwards."""
    tasks.add_task(logger.info, "worked")


@router.get("/{thing_id}")
async def get_thing(thing_id: PathId) -> int:
    """Log something, and return it."""
    logger.info("looked at %d", thing_id, extra={"thing": thing_id})
    if thing_id == 404:
        raise HTTPException(404)
    return thing_id


@pytest.fixture
def log() -> Iterator[Lines]:
    """Give what returns the lines that were logged meanwhile."""
    written = StringIO()
    stream, formatter = handler.setStream(written), handler.formatter
    yield lambda: written.getvalue().splitlines()
    handler.setStream(stream or sys.stderr)
    handler.setFormatter(formatter)


@pytest.fixture
def things(settings: Settings) -> Iterator[TestClient]:
    """Give a client of an app that logs JSON from DEBUG up."""
    level = logger.level
    app = create_app(
        settings.model_copy(update={"log_format": "json", "log_level": "DEBUG"})
    )
    app.include_router(router)
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client
    logger.setLevel(level)


def records(log: Lines) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log()]


def access(log: Lines) -> list[dict[str, Any]]:
    return [each for each in records(log) if each["logger"] == "app.access"]


def others(log: Lines) -> list[dict[str, Any]]:
    """Return what was logged of a request besides its own line."""
    lines = [each for each in records(log) if each["request_id"] != "-"]
    return [each for each in lines if each["logger"] != "app.access"]


@pytest.mark.parametrize(
    ("path", "route", "status"),
    [
        ("/things/7?token=secret", "/things/{thing_id}", 200),
        ("/things/404", "/things/{thing_id}", 404),
        ("/things/0", "/things/{thing_id}", 422),
        ("/things/broken", "/things/broken", 500),
        ("/nothing/%0Ahere", "/nothing/%0Ahere", 404),
    ],
)
def test_a_request_has_one_line(
    log: Lines, things: TestClient, path: str, route: str, status: int
) -> None:
    things.get(path, headers={"X-Request-ID": "find-me"})
    (line,) = access(log)
    assert line.pop("duration_ms") >= 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}\+00:00", line.pop("time"))
    assert line.pop("message").startswith(f"GET {route} {status} ")
    assert line == {
        "level": "INFO",
        "logger": "app.access",
        "request_id": "find-me",
        "method": "GET",
        "route": route,
        "status": status,
    }
    assert "secret" not in str(records(log))


def test_a_path_that_is_no_text_has_its_line() -> None:
    # Not every server decodes paths as uvicorn does.
    assert route_of({"path": "/\udcff"}) == "/%3F"


def test_a_response_has_its_line_before_background_tasks_begin(
    log: Lines, things: TestClient
) -> None:
    things.get("/things/later", headers={"X-Request-ID": "find-me"})
    lines = [each for each in records(log) if each["request_id"] == "find-me"]
    assert [each["logger"] for each in lines] == ["app.access", "app"]


def test_health_has_its_line_at_debug_only(log: Lines, things: TestClient) -> None:
    things.get("/health/live")
    (line,) = access(log)
    assert (line["level"], line["route"]) == ("DEBUG", "/health/live")


def test_a_refused_preflight_has_its_line_too(settings: Settings, log: Lines) -> None:
    origins = ["https://a.example"]
    changes = {"log_format": "json", "cors_origins": origins}
    asks = {"Origin": "https://b.example", "Access-Control-Request-Method": "GET"}
    with TestClient(create_app(settings.model_copy(update=changes))) as client:
        client.options("/things", headers=asks)
    assert [(line["method"], line["status"]) for line in access(log)] == [
        ("OPTIONS", 400)
    ]


def test_what_is_given_as_extra_is_a_field(log: Lines, things: TestClient) -> None:
    things.get("/things/7", headers={"X-Request-ID": "find-me"})
    (line,) = others(log)
    assert (line["thing"], line["message"]) == (7, "looked at 7")
    assert line["request_id"] == "find-me"


def test_fields_that_do_not_fit_are_named_at_debug(
    log: Lines, things: TestClient
) -> None:
    things.get("/things/nought")
    (line,) = others(log)
    assert line["level"] == "DEBUG"
    assert "validation-error" in line["message"]
    assert "thing_id" in line["message"]
    assert "nought" not in line["message"]


def test_a_problem_has_a_name_in_the_log(log: Lines, things: TestClient) -> None:
    answer = things.get("/things/broken")
    assert answer.json()["type"] == "about:blank"
    (line,) = others(log)
    assert "about:blank" not in line["message"]
    assert line["message"].startswith("GET /things/broken: ProblemError: ")
    assert "ValueError: 'the reason\\nand more'" in line["message"]
    assert "Traceback" in line["exception"]


def test_a_known_problem_has_no_traceback(log: Lines, things: TestClient) -> None:
    assert things.get("/things/busy").status_code == 503
    (line,) = others(log)
    assert "at-capacity" in line["message"]
    assert "exception" not in line


def test_who_may_not_is_told_so(things: TestClient) -> None:
    answer = things.get("/things/forbidden")
    assert (answer.status_code, answer.json()["title"]) == (403, "Forbidden")


def test_the_cause_of_an_error_names_the_line_that_led_to_it() -> None:
    with pytest.raises(ProblemError) as raised:
        raise ProblemError("refused")
    assert cause_of(raised.value) == "ProblemError: 'refused'"
    with pytest.raises(AttributeError) as raised_in_app:
        create_app(None)  # type: ignore[arg-type]
    assert " at app/logs.py:" in cause_of(raised_in_app.value)


def test_lines_are_readable_where_nobody_asks_for_json(log: Lines) -> None:
    configure_logging(make_settings("sqlite:///test.db"))
    logger.warning("careful")
    (line,) = log()
    assert line.endswith(" WARNING [-] app: careful")


@pytest.mark.parametrize(
    ("environment", "log_format"),
    [("development", "line"), ("test", "line"), ("production", "json")],
)
def test_production_logs_json(environment: str, log_format: str) -> None:
    url = "sqlite:///test.db"
    assert make_settings(url, environment=environment).log_format == log_format
    for chosen in ("line", "json"):
        settings = make_settings(url, environment=environment, log_format=chosen)
        assert settings.log_format == chosen


@pytest.mark.parametrize("log_format", ["line", "json"])
def test_lines_have_the_id_of_the_trace(log: Lines, log_format: str) -> None:
    configure_logging(make_settings("sqlite:///test.db", log_format=log_format))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("span") as span:
        logger.warning("inside")
    logger.warning("outside")
    inside, outside = log()
    assert f"{span.get_span_context().trace_id:032x}" in inside
    assert "trace_id" not in outside


def test_the_lines_of_uvicorn_look_the_same(settings: Settings, log: Lines) -> None:
    names = ("uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each.handlers[:], each.propagate, each.level) for each in loggers]
    try:
        logging.config.dictConfig(LOGGING_CONFIG)
        configure_logging(settings.model_copy(update={"log_format": "json"}))
        loggers[1].info("Started", extra={"color_message": "colours"})
        (line,) = records(log)
        assert (line["logger"], line["message"]) == ("uvicorn.error", "Started")
        assert "colours" not in str(line)
        # uvicorn then logs no requests.
        assert not loggers[2].hasHandlers()
    finally:
        for each, state in zip(loggers, before, strict=True):
            each.handlers, each.propagate, each.level = state


def test_a_bug_is_logged_once_under_the_id_of_its_request(
    log: Lines, things: TestClient
) -> None:
    app = things.app
    assert isinstance(app, FastAPI)
    database, app.state.database = app.state.database, None
    things.get("/health/database", headers={"X-Request-ID": "find-me"})
    app.state.database = database
    (line,), (bug,) = access(log), others(log)
    assert line["status"] == 500
    assert line["request_id"] == bug["request_id"] == "find-me"
    assert "Traceback" in bug["exception"]
