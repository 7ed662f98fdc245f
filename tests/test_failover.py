"""A cluster of Patroni's fails over under a service: nothing is lost, or done twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.evidence import note
from tests.failover import FAULTS, LOSSES, Outcome, attempt, cannot_happen
from tests.patroni import Patroni, what_is_missing
from tests.template import DEFAULT, EXTREMES, Answers, Bakery, name_of

pytestmark = [pytest.mark.slow]

# In these, the standbys are there, and no primary is.
READ_FROM_STANDBYS = {"switchover", "killed", "killed in COMMIT", "paused", "unplugged"}
# Retries until there is a primary, after a COMMIT whose outcome nobody knows as well.
RETRYABLE = "    if isinstance(error, SchemaChangedError):\n"
RETRY_ALL = "    if isinstance(error, DatabaseError):\n"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Patroni]:
    """Three nodes, for those who break them; they mend them again."""
    if missing := what_is_missing():
        pytest.skip(missing)
    with Patroni() as cluster:
        yield cluster


def assert_is_kept(outcome: Outcome) -> None:
    """Check that clients were told what is so, and the service goes on."""
    print(outcome)
    note(acknowledged=outcome.acknowledged, lost=outcome.lost)
    assert outcome.acknowledged > 0
    assert outcome.lost == 0
    assert outcome.doubled == 0
    assert outcome.refused_and_stored == 0
    assert outcome.wrong_totals == 0
    assert outcome.odd == []
    assert not outcome.restarted


@pytest.mark.parametrize(
    ("fault", "way", "variant"),
    [
        pytest.param(
            *(fault, way, variant),
            id=f"{fault}-{way}-{name_of(variant)}",
            marks=[]
            if (fault, way, variant) == ("switchover", "proxy", DEFAULT)
            else [pytest.mark.rare],
        )
        for fault in FAULTS
        for way in ("hosts", "proxy")
        for variant in EXTREMES
    ],
)
def test_what_was_acknowledged_is_kept_and_what_was_refused_is_not(
    fault: str, way: str, variant: Answers, cluster: Patroni, bake: Bakery
) -> None:
    if reason := cannot_happen(fault):
        pytest.skip(reason)
    project = bake(**variant, example=True)
    outcome = attempt(cluster, fault, project, name_of(variant), way)
    assert_is_kept(outcome)
    if fault in READ_FROM_STANDBYS:
        assert outcome.reads_meanwhile > 0


# The three that follow show that what is counted above can be something else than zero.


@pytest.mark.rare
@pytest.mark.parametrize("variant", [DEFAULT], ids=name_of)
@pytest.mark.parametrize("fault", LOSSES)
def test_an_asynchronous_standby_loses_what_was_acknowledged(
    fault: str, variant: Answers, cluster: Patroni, bake: Bakery
) -> None:
    project = bake(**variant, example=True)
    outcome = attempt(cluster, fault, project, name_of(variant), "hosts")
    print(outcome)
    assert outcome.lost > 0
    assert outcome.odd == []
    assert not outcome.restarted


@pytest.mark.rare
@pytest.mark.parametrize("variant", EXTREMES, ids=name_of)
def test_what_is_unknown_may_be_stored(
    variant: Answers, cluster: Patroni, bake: Bakery
) -> None:
    project = bake(**variant, example=True)
    fault = "killed in COMMIT"
    outcome = attempt(cluster, fault, project, name_of(variant), "hosts")
    assert_is_kept(outcome)
    assert outcome.unknown_stored > 0


@pytest.mark.rare
@pytest.mark.parametrize("variant", [DEFAULT], ids=name_of)
def test_what_is_unknown_is_done_twice_by_who_retries_it(
    variant: Answers, cluster: Patroni, bake: Bakery, tmp_path: Path
) -> None:
    project = shutil.copytree(bake(**variant, example=True), tmp_path / "project")
    errors = project / "app/db/errors.py"
    text = errors.read_text()
    assert RETRYABLE in text
    errors.write_text(text.replace(RETRYABLE, RETRY_ALL, 1))
    outcome = attempt(
        *(cluster, "killed in COMMIT", project, name_of(variant), "hosts"),
        # Until there is another primary.
        DATABASE_RETRY_DEADLINE=60,
    )
    print(outcome)
    assert outcome.doubled > 0
