"""Attacks on services, one module each: uvicorn on PostgreSQL, from outside.

Whatever breaks, what was acknowledged is there afterwards, and nothing is kept.
"""

import pytest

from tests.template import COMBINATIONS, name_of

# Of most attacks, a project in two variants is enough; these meet all.
in_all_variants = pytest.mark.parametrize(
    "project", COMBINATIONS, indirect=True, ids=name_of
)
