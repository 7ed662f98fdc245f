"""Runs a collection of Postman's: its own requests, and its own scripts, unchanged.

What newman, Postman's runner, does with it, as far as RealWorld's collection needs: an
API that a script uses and that is not here fails the script. QuickJS runs the scripts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import quickjs
from httpx2 import Client

# What a script finds, and what is read after it: `tests` has an entry an assertion.
SANDBOX = """
var [code, responseBody, variables] = JSON.parse(given);
var tests = {}, environment = {}, responseCode = {code};
var pm = {globals: {
    get: name => variables[name],
    set: (name, value) => { variables[name] = value; },
}};
"""


@dataclass
class Result:
    """What a request of the collection has led to."""

    name: str
    status: int
    assertions: dict[str, bool]
    """Whether each of its assertions holds."""


def run_collection(
    path: Path, client: Client, variables: dict[str, Any]
) -> list[Result]:
    """Send all requests in order, each with its variables; run the scripts of each."""
    collection = json.loads(path.read_text(encoding="utf-8"))
    results = []
    for item in requests_in(collection):
        request = item["request"]
        response = client.request(
            request["method"],
            fill(request["url"]["raw"], variables),
            headers={
                each["key"]: fill(each["value"], variables)
                for each in request["header"]
            },
            content=fill(request["body"]["raw"], variables),
        )
        assertions: dict[str, bool] = {}
        for event in item.get("event", []):
            script = "\n".join(event["script"]["exec"])
            assert event["listen"] == "test" or not script.strip()
            given = json.dumps([response.status_code, response.text, variables])
            context = quickjs.Context()
            context.set("given", given)
            context.eval(SANDBOX)
            context.eval(script)
            tests, changed = json.loads(
                context.eval("JSON.stringify([tests, variables])")
            )
            assertions |= {name: bool(holds) for name, holds in tests.items()}
            variables.update(changed)
        results.append(Result(item["name"], response.status_code, assertions))
    return results


def requests_in(folder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give all requests below a folder, in order."""
    for each in folder["item"]:
        if "item" in each:
            assert not any("".join(e["script"]["exec"]) for e in each.get("event", []))
            yield from requests_in(each)
        else:
            yield each


def fill(text: str, variables: dict[str, Any]) -> str:
    """Put the values of variables in their places; each has to have one."""
    return re.sub(r"{{(\w+)}}", lambda match: str(variables[match[1]]), text)
