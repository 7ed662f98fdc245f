"""What the explorer shows: every file for every set of answers, each line once."""

from __future__ import annotations

import json
import runpy
import unicodedata
from collections import Counter
from typing import Any

from text_unidecode import unidecode

from docs.site import code, timeline
from docs.site.merging import by_content, merge
from docs.site.renderings import (
    DERIVED,
    PLACEHOLDERS,
    PROMPTS,
    ROOT,
    SWITCHES,
    TEXTS,
    escapes_of,
)

Merged = list[tuple[int, str]]
# What people write names in, apart from ASCII: Latin, Greek, Cyrillic, punctuation.
LETTERS = [*range(0x80, 0x460), *range(0x2010, 0x2045), 0x20AC]


def merged_files(projects: list[dict[str, str]]) -> dict[str, Merged]:
    """Return the marked lines of each file, with the sets of answers they are for."""
    names = sorted({name for project in projects for name in project}, key=_as_in_tree)
    return {
        name: merge(
            {
                tuple(code.marked(content, name)): mask
                for content, mask in by_content(
                    [project.get(name) for project in projects]
                ).items()
            }
        )
        for name in names
    }


def _as_in_tree(name: str) -> list[tuple[bool, str]]:
    """Sort folders before files, as forges do."""
    *folders, file = name.split("/")
    return [*((False, folder) for folder in folders), (True, file)]


def payload(number: int, merged: Merged) -> str:
    """Return a script that hands the explorer one file."""
    runs: list[list[Any]] = []
    for mask, line in merged:
        if runs and runs[-1][0] == mask:
            runs[-1][1] += f"\n{line}"
        else:
            runs.append([mask, line])
    return f"explorer.receive({number},{_json(runs)});\n"


def manifest(files: dict[str, Merged]) -> dict[str, Any]:
    """Return what the explorer knows before it has any file."""
    hook = runpy.run_path(str(ROOT / "hooks" / "pre_gen_project.py"), run_name="hook")
    refused = {
        "is the name of a dependency": hook["DEPENDENCIES"].split(),
        "is a package of the project": sorted(hook["PACKAGES"]),
        "is a device of Windows": sorted(hook["WINDOWS_DEVICES"]),
        "is a keyword of Python": [
            each for each in hook["keyword"].kwlist if each.islower()
        ],
    }
    asked: dict[str, Any] = PROMPTS["__prompts__"]
    return {
        "switches": [
            {
                "name": name,
                "choices": choices,
                "question": asked[name]["__prompt__"]
                if isinstance(asked[name], dict)
                else asked[name],
                "meanings": [
                    asked[name][choice].partition(": ")[2]
                    if isinstance(asked[name], dict)
                    else ""
                    for choice in choices
                ],
            }
            for name, choices in SWITCHES.items()
        ],
        "texts": {name: PROMPTS[name] for name in TEXTS},
        "placeholders": PLACEHOLDERS,
        "derived": {
            name: {"of": text, "escapes": escapes_of(name)}
            for name, text in DERIVED.items()
        },
        "slug": {
            "letters": _transliterations(),
            "longest": hook["LONGEST_SLUG"],
            "pattern": hook["SLUG"].pattern,
            "refused": refused,
            "fallback": "my-service",
        },
        "longestText": hook["LONGEST_TEXT"],
        "classes": {opening: name for name, opening in code.OPENING.items()},
        "files": [
            [name, [*Counter(mask for mask, _ in merged).items()]]
            for name, merged in files.items()
        ],
    }


def _transliterations() -> dict[str, str]:
    """Return what becomes of letters, once Unicode has taken them apart."""
    letters = [chr(number) for number in LETTERS]
    return {
        letter: unidecode(letter)
        for letter in letters
        if unicodedata.normalize("NFKD", letter) == letter
    }


def timelines() -> dict[str, Any]:
    """Return the drawings of all cases, by the answers that they depend on."""
    return {
        "cases": timeline.CASES,
        "figures": {
            f"{io}-{commit}-{pattern}-{case}": timeline.figure(
                timeline.timeline(
                    {"io": io, "commit": commit, "pattern": pattern}, case
                )
            )
            for io in SWITCHES["io"]
            for commit in SWITCHES["commit"]
            for pattern in SWITCHES["pattern"]
            for case in timeline.CASES
        },
    }


def script(call: str, data: Any) -> str:
    """Return a script that hands over data: `fetch` cannot read beside a file."""
    return f"{call}({_json(data)});\n"


def _json(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    # These end a line in old JavaScript, and a script in HTML.
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
