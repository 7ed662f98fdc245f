"""Is the process alive? Whether it may get traffic is the database's to say."""

from typing import Literal

from pydantic import BaseModel

from app.problems import problem_responses
from app.routing import Router

router = Router(prefix="/health", tags=["health"])


class Health(BaseModel):
    """All is well; otherwise the answer is a problem."""

    status: Literal["ok"] = "ok"


@router.get("/live", responses=problem_responses())
async def live() -> Health:
    """Answer as long as the process can: no database, no thread."""
    return Health()
