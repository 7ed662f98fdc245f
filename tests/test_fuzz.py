"""Services under requests that nobody would write: each answer is a documented one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import product
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
import schemathesis
from httpx2 import Client, Response
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, GenerationMode
from schemathesis.core.transport import Response as Received
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    positive_data_acceptance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.evidence import note
from tests.postgres import Server
from tests.service import MIGRATE, Service, run
from tests.shop import PASSWORD, new_product, register
from tests.template import COMBINATIONS, Bakery, name_of

pytestmark = [pytest.mark.slow, pytest.mark.costly]

# The same requests each time: only a change of ours, or of a tool's, changes a result.
bounded = settings(
    derandomize=True,
    database=None,
    max_examples=20,
    suppress_health_check=list(HealthCheck),
)
AnyCase = Case[Any]
AnyOperation = APIOperation[Any, Any, Any, Any]
ADA, GRACE = "ada@example.com", "grace@example.com"
# A hash takes its time: these are not asked what others can be asked as well.
HASHING = {"POST /users", "POST /auth/token"}
LIMIT = 2**20  # MAX_BODY_SIZE, by default


@dataclass(frozen=True)
class Good:
    """What an operation takes; the answer is a success."""

    id: int = 1
    query: dict[str, Any] = field(default_factory=dict)
    json: Any = None
    form: dict[str, str] = field(default_factory=dict)


# There is as much of each as there can be.
FIRST, SECOND, THIRD = (
    new_product(sku=sku, stock=10**12, tags=["new"])
    for sku in ("first", "second", "third")
)
# In this order; all of the document, and product 1 and order 1 are there afterwards.
GOOD = {
    "GET /health/live": Good(),
    "GET /health/ready": Good(),
    "GET /health/database": Good(),
    "POST /users": Good(
        json={"email": ADA, "full_name": "Ada", "password": PASSWORD},
    ),
    "POST /auth/token": Good(form={"username": ADA, "password": PASSWORD}),
    "GET /users/me": Good(),
    "POST /transfers": Good(json={"recipient_email": GRACE, "amount": 1}),
    "POST /products": Good(json=FIRST),
    "POST /products/bulk": Good(json=[SECOND, THIRD]),
    "PATCH /products/{product_id}": Good(json={"price": 2, "tags": ["old"]}),
    "DELETE /products/{product_id}": Good(id=3),
    "POST /orders": Good(
        json={
            "items": [
                {"product_id": 1, "quantity": 1},
                {"product_id": 3, "quantity": 1},
            ],
            "on_shortage": "skip",
        }
    ),
    "GET /orders": Good(query={"limit": 1, "offset": 0}),
    "GET /orders/{order_id}": Good(),
    "POST /orders/{order_id}/fulfilment": Good(),
    "GET /products": Good(
        query={
            "search": "IR",
            "min_price": 1,
            "max_price": 2,
            "in_stock": "true",
            "tag": "old",
            "limit": 1,
            "offset": 0,
        }
    ),
    "GET /products/export": Good(),
    "GET /products/{product_id}": Good(),
}


@dataclass(frozen=True)
class Shop:
    """A service, its document, and what it has answered to all that is good."""

    service: Service
    api: BaseSchema
    client: Client
    answers: dict[str, Response]

    def operation(self, name: str) -> AnyOperation:
        """Return what the document says of "GET /products"."""
        method, path = name.split()
        return self.api[path][method]

    def ask(self, name: str, **instead: Any) -> Response:
        """Send what is good, and something else instead of some of it."""
        good, method = GOOD[name], name.split()[0]
        request: dict[str, Any] = {"url": url_of(name), "params": good.query}
        request |= {"json": good.json, "data": good.form} | instead
        sent = {key: value for key, value in request.items() if value}
        return self.client.request(method, **sent)


def url_of(name: str, place: object = None) -> str:
    """Return the path of an operation, with what is good in its place, or else."""
    place = GOOD[name].id if place is None else place
    return name.split()[1].format(order_id=place, product_id=place)


def exactly(number: str) -> float:
    """Return a number of the document, where FastAPI makes floats of some bounds."""
    return 2**63 - 1 if float(number) == 2**63 else float(number)


@pytest.fixture(scope="module", params=COMBINATIONS, ids=name_of)
def shop(
    request: pytest.FixtureRequest,
    bake: Bakery,
    server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Shop]:
    """Services on one database or the other, where no request leaves a traceback."""
    project = bake(**request.param, example=True)
    if request.param["pattern"] == "unit_of_work":
        url = f"sqlite:///{tmp_path_factory.mktemp('shop')}/shop.db"
    else:
        url = server.create_database()
    run(project, *MIGRATE, DATABASE_URL=url)
    with Service(project, DATABASE_URL=url, ENVIRONMENT="test") as service:
        client = service.client()
        text = client.get("/openapi.json").text
        document = json.loads(text, parse_float=exactly)
        api = schemathesis.openapi.from_dict(document)
        api.config.update(base_url=service.url)
        shop = Shop(service, api, client, {})
        register(client, GRACE)
        for name in GOOD:
            answer = shop.answers[name] = shop.ask(name)
            assert answer.is_success, (name, answer.text)
            if name == "POST /auth/token":
                token = answer.json()["access_token"]
                client.headers["Authorization"] = f"Bearer {token}"
        yield shop
        assert client.get("/health/database").json()["checked_out"] == 1
        before, found, trace = service.log.partition("Traceback")
        assert not found, before[-500:] + found + trace[:4_000]


@pytest.fixture(autouse=True)
def counted(shop: Shop) -> Iterator[None]:
    """Note how many requests a test has sent."""
    before = shop.service.log.count(" HTTP/1.1")
    yield
    note(requests=shop.service.log.count(" HTTP/1.1") - before)


PROBLEM = {"type", "title", "status", "detail", "instance"}


def errors_are_problems(_: CheckContext, received: Received, __: AnyCase) -> None:
    """Check what holds for all answers, those to methods that no document has too."""
    assert len(received.headers["x-request-id"][0]) > 0
    if received.status_code < 400:
        return
    assert received.headers["content-type"] == ["application/problem+json"]
    problem = received.json()
    assert problem["status"] == received.status_code
    # The database has refused what should not have come so far.
    assert problem["type"] != "invalid-data"
    assert problem["title"] == HTTPStatus(received.status_code).phrase
    assert problem.keys() - {"errors"} == PROBLEM


def assert_documented(shop: Shop, name: str, answer: Response) -> None:
    """Check an answer to a request of our own against the document."""
    checks = [
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
        errors_are_problems,
    ]
    assert answer.status_code < 500, answer.text
    ids = {"order_id": 1, "product_id": 1}  # It shows a path, if a check fails.
    case = shop.operation(name).Case(path_parameters=ids)
    case.validate_response(answer, checks=checks)


texts = st.text(st.characters(), max_size=20)  # with lone surrogates
# JSON, or a part of it: out of range, broken, and what only other languages have.
TOKENS = [
    *("NaN", "-Infinity", "1e400", "-0", "1.5", "9" * 5_000, str(2**63), str(-(2**64))),
    *("null", "true", "[]", "{}", "", "[", "nul", '"\\x"', f'"{"x" * 5_000}"'),
    *('"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"'),
]
# Too deep, and too long, for most who read it.
GIANTS = [
    *("[" * 100_000 + "]" * 100_000, '{"a":' * 50_000 + "1" + "}" * 50_000),
    *(f'"{"x" * 1_000_000}"', "9" * 1_000_000),
]
tokens = st.one_of(
    st.sampled_from(TOKENS + GIANTS),
    st.builds(json.dumps, texts, ensure_ascii=st.booleans()),
    st.integers().map(str),
)
CODECS = [*["utf-8"] * 5, "utf-8-sig", "utf-16", "utf-32-be"]
# A part of a URL or of a form.
ESCAPED = [
    *("%00", "%FF", "%C0%80", "%ED%A0%80", "%zz", "%", "%2F", "..", "%E2%80%A8", "\\"),
    *("NaN", "1e400", "9" * 5_000, str(2**63), "-1", "0", "+1", "1_0", "1.0", "%D9%A1"),
    "",
]
escaped = st.one_of(
    st.sampled_from(ESCAPED),
    texts.map(lambda text: quote(text.encode(errors="surrogatepass"), safe="")),
)
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
MEDIA_TYPES = [
    *(JSON, "application/json; charset=utf-16", "application/x+json", "text/plain"),
    *(FORM, "multipart/form-data", "multipart/form-data; boundary=x", "/", "a" * 5_000),
]
CREDENTIALS = [
    *(b"", b"Bearer", b"Bearer \xff", b"Basic Og==", b"bearer a.b"),
    *(b"Bearer e30.e30.e30", b"Bearer " + b"a" * 5_000),
]


def spans(good: Good) -> list[tuple[int, int]]:
    """Return where the values and names in a body are, and where all of it is."""
    text = json.dumps(good.json)
    parts = [part.span() for part in re.finditer(r'"[^"]*"|\d+', text)]
    return [*parts, (0, len(text))]


def with_token(good: Good, span: tuple[int, int], token: str) -> str:
    """Return a body of JSON with something else in one place."""
    text = json.dumps(good.json)
    return text[: span[0]] + token + text[span[1] :]


def with_body(content: bytes, media_type: str) -> dict[str, Any]:
    """Return what to send instead of a good body."""
    headers = {"Content-Type": media_type}
    return {"json": None, "data": None, "content": content, "headers": headers}


def with_pair(good: dict[str, Any], name: str, value: str) -> str:
    """Return a query, or a form, with one value instead of the good one, or besides."""
    rest = urlencode({key: good[key] for key in good if key != name})
    return f"{rest}&{name}={value}"


def one_by_one(name: str) -> Iterator[dict[str, Any]]:
    """Return requests with one thing wrong: everything bad, in every place."""
    good = GOOD[name]
    if name not in HASHING:
        for credentials in CREDENTIALS:
            yield {"headers": {"Authorization": credentials}}
    for value in ESCAPED:
        if "{" in name:
            yield {"url": url_of(name, value)}
        for key in good.query:
            query = with_pair(good.query, key, value)
            yield {"url": f"{url_of(name)}?{query}", "params": None}
        for key in good.form:
            form = with_pair(good.form, key, value).encode()
            yield with_body(form, FORM)
    if good.json is None:
        return
    for media_type in MEDIA_TYPES:
        yield with_body(json.dumps(good.json).encode(), media_type)
    *places, everything = spans(good)
    wrong = [*product(places, TOKENS), *product([everything], TOKENS + GIANTS)]
    for span, token in wrong:
        yield with_body(with_token(good, span, token).encode(), JSON)


@st.composite
def hostile(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """Return a request with more than one thing wrong, and in other ways."""
    good = GOOD[name]
    url = url_of(name, draw(st.one_of(st.none(), escaped)))
    keys = st.sampled_from([*good.query, *good.form, "x", "%FF"])
    pairs = st.lists(st.builds("{}={}".format, keys, escaped)).map("&".join)
    request = {"url": f"{url}?{draw(pairs)}", "params": None}
    token = with_token(good, draw(st.sampled_from(spans(good))), draw(tokens))
    text = draw(st.one_of(st.just(token), pairs))
    body = text.encode(draw(st.sampled_from(CODECS)), "surrogatepass")
    place = draw(st.integers(0, len(body)))
    body = body[:place] + draw(st.binary(max_size=4)) + body[place:]
    return request | with_body(body, draw(st.sampled_from(MEDIA_TYPES)))


# What a schema in the document cannot say, or says otherwise: which characters are
# printable, that each product is named once; that 1.0 is no integer for us; and that
# white space includes U+0085, which it does not in ECMA-262's regular expressions.
BEYOND_SCHEMA = {"value_error", "int_type", "string_pattern_mismatch"}
# For methods that they don't have, these are products called "bulk" and "export".
PRODUCTS_TOO = {"/products/bulk", "/products/export"}
PRODUCT_METHODS = {"GET", "PATCH", "DELETE"}


def exceptions_for(case: AnyCase, received: Received) -> list[Any]:
    """Return the checks that do not apply, each for the reason that is given above."""
    excluded = []
    if case.path in PRODUCTS_TOO and case.method in PRODUCT_METHODS:
        excluded.append(unsupported_method)
    if received.status_code == 422:
        errors = received.json().get("errors", [])
        if any(error["type"] in BEYOND_SCHEMA for error in errors):
            excluded.append(positive_data_acceptance)
    return excluded


def validate(case: AnyCase, shop: Shop) -> None:
    """Send what was made up, with and without a token; check the answers."""
    signed_in = {"Authorization": shop.client.headers["Authorization"]}
    with requests.Session() as session:
        session.trust_env = False
        for headers in ({}, signed_in):
            # Copies: sending adds to them.
            received = case.call(session=session, headers=dict(headers))
            case.validate_response(
                received,
                headers=headers,
                additional_checks=[errors_are_problems],
                excluded_checks=exceptions_for(case, received),
                transport_kwargs={"session": session, "headers": dict(headers)},
            )


def validate_at_random(operation: AnyOperation, shop: Shop) -> None:
    """Check the answers to requests of an operation, right ones and wrong ones."""

    @bounded
    @given(st.one_of(*map(operation.as_strategy, GenerationMode)))
    def check(case: AnyCase) -> None:
        validate(case, shop)

    check()


def attack(name: str, shop: Shop, request: dict[str, Any]) -> None:
    """Check the answer to a request that schemathesis would not send."""
    try:
        assert_documented(shop, name, shop.ask(name, **request))
    except Exception as error:
        error.add_note(f"{request!r:.1000}")
        raise


def attack_at_random(name: str, shop: Shop) -> None:
    """Check the answers to hostile requests."""

    @bounded
    @given(hostile(name))
    def check(request: dict[str, Any]) -> None:
        attack(name, shop, request)

    check()


def test_every_success_is_documented(shop: Shop, subtests: pytest.Subtests) -> None:
    paths = shop.api.raw_schema["paths"]
    documented = {f"{way.upper()} {path}" for path in paths for way in paths[path]}
    assert GOOD.keys() == documented
    for name, answer in shop.answers.items():
        with subtests.test(name):
            assert_documented(shop, name, answer)


def test_every_answer_to_a_made_up_request_is_documented(
    shop: Shop, subtests: pytest.Subtests
) -> None:
    # Last things first: what is to be ordered has not been changed then.
    for name in reversed(GOOD):
        operation = shop.operation(name)
        limits = shop.api.iter_coverage_cases(
            operation,
            generation_modes=list(GenerationMode),
            generation_config=shop.api.config.generation_for(operation=operation),
        )
        with subtests.test(f"{name}, at the limits of its schema"):
            for case in limits:
                validate(case, shop)
        with subtests.test(f"{name}, at random"):
            validate_at_random(operation, shop)


def test_every_answer_to_a_hostile_request_is_documented(
    shop: Shop, subtests: pytest.Subtests
) -> None:
    for name in GOOD:
        with subtests.test(f"{name}, one by one"):
            for request in one_by_one(name):
                attack(name, shop, request)
        with subtests.test(f"{name}, at random"):
            attack_at_random(name, shop)


def test_a_body_over_the_limit_is_refused_as_documented(
    shop: Shop, subtests: pytest.Subtests
) -> None:
    for name in GOOD:
        with subtests.test(name):
            answer = shop.ask(name, **with_body(bytes(LIMIT + 1), JSON))
            assert answer.status_code == 413
            assert_documented(shop, name, answer)
