"""Highlights code by Pygments, as HTML for pages and as marked text for the explorer."""

from __future__ import annotations

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
# In marked text a character opens each class, and one closes it.
OPENING = {name: chr(0xE100 + n) for n, name in enumerate(sorted({*CLASSES.values()}))}
CLOSING = "\ue0ff"

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


def html(code: str, language: str) -> str:
    """Return code as spans."""
    parts = []
    for kind, text in lexer_of_language(language).get_tokens(code):
        name = _class_of(kind)
        inner = escape(text, quote=False)
        parts.append(f'<span class="{name}">{inner}</span>' if name else inner)
    return "".join(parts)


def marked(code: str, file: str) -> list[str]:
    """Return the lines of a file with the marks of their tokens."""
    parts: list[str] = []
    for kind, text in lexer_of_file(file).get_tokens(code):
        name = _class_of(kind)
        for piece in text.splitlines(keepends=True) if name else [text]:
            line, end = (piece[:-1], "\n") if piece.endswith("\n") else (piece, "")
            if name and line.strip():
                parts.append(f"{OPENING[name]}{line}{CLOSING}{end}")
            else:
                parts.append(piece)
    return "".join(parts).split("\n")
