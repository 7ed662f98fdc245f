"""What a service writes in production: JSON and nothing else, uvicorn's lines too."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.service import MIGRATE, Service, run
from tests.template import EXTREMES, Answers, Bakery, name_of

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("variant", EXTREMES, ids=name_of)
def test_production_writes_one_json_object_a_line(
    variant: Answers, bake: Bakery, tmp_path: Path
) -> None:
    project = bake(**variant, example=True)
    settings: dict[str, Any] = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'database.db'}",
        "SECRET_KEY": "of production " * 3,
    }
    run(project, *MIGRATE, **settings)
    with Service(project, **settings) as service:
        headers = {"X-Request-ID": "find-me"}
        answer = service.client().get("/products/7?token=secret", headers=headers)
        assert answer.status_code == 404
        service.signal(signal.SIGINT)
        assert service.wait() == 0
        lines = [json.loads(line) for line in service.log.splitlines()]
    assert {line["logger"] for line in lines} == {"app.access", "uvicorn.error"}
    (access,) = [line for line in lines if line["logger"] == "app.access"]
    assert (access["route"], access["status"]) == ("/products/{product_id}", 404)
    assert access["request_id"] == "find-me"
    assert "secret" not in str(lines)
    assert lines[-1]["message"].startswith("Finished server process")
