"""When does it commit? What happens to a request, step by step.

What the steps say follows from `app/transaction.py`, `app/db/session.py` and
`app/db/admission.py`. tests/test_site.py traces rendered services, and compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

Answers = Mapping[str, str]
Kind = Literal["call", "back", "commit", "rollback", "good", "bad", "note"]

LANES = {
    "client": "client",
    "admission": "FastAPI, admission",
    "session": "session",
    "service": "endpoint, service",
    "repository": "repository",
    "database": "database",
}

CASES = {
    "commit": "All goes well",
    "exception": "The service raises",
    "returned": "The endpoint returns 409",
    "failing": "The COMMIT fails",
    "leaving": "The client leaves",
    "forgotten": "A commit is forgotten",
    "unknown": "The connection is lost in COMMIT",
    "full": "The pool is full",
}


@dataclass(frozen=True)
class Step:
    """An arrow from one lane to another, or a note beside one."""

    at: str
    to: str
    text: str
    kind: Kind = "call"
    event: str = ""
    """What a trace of a service sees of it, or how a transaction ended."""


@dataclass(frozen=True)
class Timeline:
    """What happens in a case, and what of it is saved."""

    steps: tuple[Step, ...]
    saved: str


def _note(lane: str, text: str) -> Step:
    return Step(lane, lane, text, "note")


def _begin(answers: Answers) -> list[Step]:
    is_uow = answers["pattern"] == "unit_of_work"
    given = "uow" if is_uow else "session"
    thread = ", in a thread" if answers["io"] == "sync" else ""
    return [
        Step("client", "admission", "POST /orders"),
        _note("admission", "wait for a slot"),
        Step("admission", "session", "slot taken", event="slot"),
        Step("session", "service", f"{given}{thread}"),
    ]


def _with(answers: Answers) -> str:
    return "async with uow:" if answers["io"] == "async" else "with uow:"


def _work(answers: Answers, *, in_block: bool = True) -> list[Step]:
    steps = [
        Step("service", "repository", "lock, change, add"),
        Step("repository", "database", "BEGIN, then statements", event="begin"),
        Step("database", "service", "rows", "back"),
    ]
    if answers["pattern"] == "unit_of_work" and in_block:
        steps.insert(0, _note("service", f"enter {_with(answers)}"))
    return steps


def _give_back() -> Step:
    return Step("session", "admission", "connection, slot back", "back", "slot back")


def _rollback() -> Step:
    return Step("session", "database", "ROLLBACK", "rollback", "rollback")


def _respond(text: str, kind: Kind) -> Step:
    return Step("admission", "client", text, kind, "response")


def _is_request(answers: Answers) -> bool:
    """Whether the request is the transaction."""
    return answers["commit"] == "auto" and answers["pattern"] == "repository"


def _commit_of(answers: Answers) -> Step:
    """Return what makes the service's session commit."""
    wait = "await " if answers["io"] == "async" else ""
    if answers["commit"] == "manual":
        name = "uow" if answers["pattern"] == "unit_of_work" else "session"
        return Step("service", "session", f"{wait}{name}.commit()")
    return Step("service", "session", f"leave {_with(answers)}")


COMMIT = Step("session", "database", "COMMIT", "commit", "commit")
COMMITTED = Step("database", "session", "committed", "back", "committed")


def _decided(answers: Answers, status: str = "201") -> list[Step]:
    """Return the steps from the end of the work to a commit that succeeds."""
    valid = "response validated, below 400" if status == "201" else f"returns {status}"
    if _is_request(answers):
        returns = Step("service", "session", "returns, response valid", "back")
        return [returns, COMMIT, COMMITTED]
    steps = [_commit_of(answers), COMMIT, COMMITTED]
    if answers["commit"] == "manual" and answers["pattern"] == "unit_of_work":
        steps.append(_note("service", "leave the block: nothing is left"))
    returned = "returns, nothing uncommitted" if status == "201" else valid
    return [*steps, Step("service", "session", returned, "back")]


def _well(answers: Answers) -> Timeline:
    steps = [
        *_begin(answers),
        *_work(answers),
        *_decided(answers),
        _give_back(),
        _respond("201, after the COMMIT", "good"),
        _note("admission", "background tasks begin"),
    ]
    return Timeline(tuple(steps), "Saved, and the client hears of it afterwards.")


def _exception(answers: Answers) -> Timeline:
    steps = [*_begin(answers), *_work(answers)]
    if answers["pattern"] == "unit_of_work":
        steps += [
            Step("service", "session", "ConflictError leaves the block", "bad"),
            _rollback(),
            Step("service", "session", "the exception goes on", "bad"),
        ]
    else:
        steps += [
            Step("service", "session", "raises ConflictError", "bad"),
            _rollback(),
        ]
    steps += [_give_back(), _respond("409 problem", "bad")]
    saved = "Nothing is saved."
    if not _is_request(answers):
        saved = "Nothing is saved, except what an earlier commit of the request saved."
    return Timeline(tuple(steps), saved)


def _returned(answers: Answers) -> Timeline:
    returns = Step("service", "session", "returns 409", "bad")
    end = [_give_back(), _respond("409", "bad")]
    if answers["pattern"] == "repository":
        saved = "Nothing is saved, although nothing was raised."
        if answers["commit"] == "manual":
            saved += " What the service had committed before would stay."
        steps = [*_begin(answers), *_work(answers), returns, _rollback(), *end]
    elif answers["commit"] == "manual":
        saved = (
            "Nothing is saved, and no commit was forgotten: the status says that it was"
            " meant so. What the service had committed before would stay."
        )
        leave = Step("service", "session", "leave the block, uncommitted")
        steps = [*_begin(answers), *_work(answers), leave, _rollback(), returns, *end]
    else:
        saved = (
            "The change is saved: the block had ended normally before. To save nothing,"
            " raise inside the block."
        )
        steps = [*_begin(answers), *_work(answers), *_decided(answers, "409"), *end]
    return Timeline(tuple(steps), saved)


def _failing(answers: Answers) -> Timeline:
    steps = [*_begin(answers), *_work(answers)]
    if _is_request(answers):
        steps.append(Step("service", "session", "returns, response valid", "back"))
    else:
        steps.append(_commit_of(answers))
    steps += [COMMIT, Step("database", "session", "refused: nothing is stored", "bad")]
    if not _is_request(answers):
        steps.append(Step("session", "service", "raises", "bad"))
        steps.append(Step("service", "session", "the exception goes on", "bad"))
    steps += [
        _give_back(),
        _respond("409, 500 or 503", "bad"),
    ]
    saved = "Nothing of that transaction is saved, and nobody was told otherwise."
    return Timeline(tuple(steps), saved)


def _leaving(answers: Answers) -> Timeline:
    begun = _begin(answers)
    steps = [
        *begun,
        *_work(answers)[:-1],
        _note("client", "leaves"),
        Step("database", "service", "rows", "back"),
        *_decided(answers),
        _give_back(),
        _respond("201 that nobody reads", "back"),
    ]
    saved = "Saved: disconnecting does not cancel a request. Nothing leaks."
    return Timeline(tuple(steps), saved)


def _forgotten(answers: Answers) -> Timeline:
    if _is_request(answers):
        return Timeline(
            (), "Cannot happen here: the request commits by itself when it ends well."
        )
    steps = [*_begin(answers)]
    if answers["commit"] == "auto":
        steps += [
            _note("service", "outside of a block"),
            *_work(answers, in_block=False),
        ]
    else:
        steps += _work(answers)
    if answers["commit"] == "manual" and answers["pattern"] == "unit_of_work":
        steps += [
            Step("service", "session", "leave the block, uncommitted"),
            _rollback(),
            Step("service", "session", "returns 201", "back"),
        ]
    else:
        steps += [Step("service", "session", "returns 201", "back"), _rollback()]
    steps += [
        _note("session", "ForgottenCommitError"),
        _give_back(),
        _respond("500, never the 201", "bad"),
    ]
    saved = "Nothing is saved, and nobody is told otherwise: the log names the route."
    return Timeline(tuple(steps), saved)


def _unknown(answers: Answers) -> Timeline:
    steps = [*_begin(answers), *_work(answers)]
    if _is_request(answers):
        steps.append(Step("service", "session", "returns, response valid", "back"))
    else:
        steps.append(_commit_of(answers))
    steps += [
        COMMIT,
        _note("database", "connection lost"),
        _note("session", "CommitOutcomeUnknownError"),
        _give_back(),
        _respond("503 commit-outcome-unknown", "bad"),
    ]
    saved = (
        "Saved or not: nobody can know. The response says so, and it is never retried."
    )
    return Timeline(tuple(steps), saved)


def _full(answers: Answers) -> Timeline:
    steps = (
        Step("client", "admission", "POST /orders"),
        _note("admission", "wait for a slot"),
        _note("admission", "none in time"),
        _respond("503 pool-exhausted, Retry-After", "bad"),
    )
    thread = " It holds no thread while it waits." if answers["io"] == "sync" else ""
    saved = f"Nothing has begun: no connection was asked for.{thread}"
    return Timeline(steps, saved)


_MAKERS = {
    "commit": _well,
    "exception": _exception,
    "returned": _returned,
    "failing": _failing,
    "leaving": _leaving,
    "forgotten": _forgotten,
    "unknown": _unknown,
    "full": _full,
}


def timeline(answers: Answers, case: str) -> Timeline:
    """Return what happens in a case of CASES, in the variant of these answers."""
    return _MAKERS[case](answers)


def figure(found: Timeline) -> str:
    """Return the steps as a list, which `timeline.js` draws, and what is saved."""
    lanes = [*LANES]
    items = []
    for step in found.steps:
        is_note = step.at == step.to
        way = LANES[step.at] if is_note else f"{LANES[step.at]} → {LANES[step.to]}"
        numbers = f"{lanes.index(step.at)}{lanes.index(step.to)}"
        event = f' data-event="{step.event}"' if step.event else ""
        items.append(
            f'<li class="{step.kind}" data-way="{numbers}"{event}>'
            f"<b>{way}</b>: <span>{escape(step.text)}</span></li>"
        )
    steps = f'<ol class="steps">{"".join(items)}</ol>' if items else ""
    return (
        f'<figure class="timeline" data-lanes="{"|".join(LANES.values())}">{steps}'
        f'<figcaption class="saved">{escape(found.saved)}</figcaption></figure>'
    )
