"""Names of articles in paths."""

import re
from secrets import token_hex


def new_slug(title: str) -> str:
    """Return a slug that nothing else has, not even `feed` or the same title."""
    words = re.sub(r"[\W_]+", "-", title.lower()).strip("-")
    return "-".join(filter(None, [words, token_hex(4)]))
