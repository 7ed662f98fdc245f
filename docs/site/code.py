"""Highlights code by Pygments: HTML for pages, marked text for the explorer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from html import escape

from pygments.lexer import Lexer
from pygments.lexers import (
    get_lexer_by_name,
    get_lexer_for_filename,
)
from pygments.token import Token, _TokenType
from pygments.util import ClassNotFound

# The kinds of token that are coloured; the most special one of a token's counts.
CLASSES = {
    Token.Keyword: "k",
    Token.Operator.Word: "k",
    Token.Literal.String: "s",
    Token.Literal.String.Doc: "q",
    Token.Literal.String.Interpol: "i",
    Token.Literal.Number: "m",
    Token.Comment: "c",
    Token.Name.Function: "f",
    Token.Name.Class: "f",
    Token.Name.Decorator: "d",
    Token.Name.Builtin: "b",
    Token.Name.Exception: "b",
    Token.Name.Tag: "t",
    Token.Name.Attribute: "t",
    Token.Generic.Heading: "h",
    Token.Generic.Subheading: "h",
    Token.Generic.Strong: "h",
    Token.Generic.Inserted: "in",
    Token.Generic.Deleted: "de",
    Token.Generic.Prompt: "c",
}
# In marked text a character opens each class, and one closes it: control characters
# that no text has, of two bytes each.
CLOSING = "\x80"
OPENING = {name: chr(0x81 + n) for n, name in enumerate(sorted({*CLASSES.values()}))}

_BY_NAME = {
    "script.py.mako": "mako",
    ".env.example": "ini",
    ".dockerignore": "text",
    ".gitignore": "text",
    "CODEOWNERS": "text",
}
_ALIASES = {"console": "console", "sh": "bash", "": "text", "mermaid": "text"}


@cache
def _class_of(kind: _TokenType) -> str:
    found: _TokenType | None = kind
    while found is not None:
        if found in CLASSES:
            return CLASSES[found]
        found = found.parent
    return ""


def lexer_of_file(name: str) -> Lexer:
    """Return what reads a file of this name."""
    base = name.rpartition("/")[2]
    if base in _BY_NAME:
        return get_lexer_by_name(_BY_NAME[base], stripnl=False, ensurenl=False)
    return get_lexer_for_filename(name, stripnl=False, ensurenl=False)


def lexer_of_language(language: str) -> Lexer:
    """Return what reads a block of code in this language; plain text if none does."""
    try:
        return get_lexer_by_name(_ALIASES.get(language, language), stripnl=False)
    except ClassNotFound:
        return get_lexer_by_name("text", stripnl=False)


def html(code: str, language: str) -> list[str]:
    """Return the lines of a block of code, with spans."""
    lines = _lines(
        code,
        lexer_of_language(language),
        lambda name, text: f'<span class="{name}">{text}</span>',
        lambda text: escape(text, quote=False),
    )
    return lines[:-1]


def marked(code: str, file: str) -> list[str]:
    """Return the lines of a file with the marks of their tokens."""
    return _lines(
        code,
        lexer_of_file(file),
        lambda name, text: f"{OPENING[name]}{text}{CLOSING}",
        str,
    )


def _lines(
    code: str,
    lexer: Lexer,
    mark: Callable[[str, str], str],
    clean: Callable[[str], str],
) -> list[str]:
    parts: list[str] = []
    for kind, text in lexer.get_tokens(code):
        name = _class_of(kind)
        for number, piece in enumerate(text.split("\n")):
            if number:
                parts.append("\n")
            shown = clean(piece)
            parts.append(mark(name, shown) if name and piece.strip() else shown)
    return "".join(parts).split("\n")
