"""What others answer with, read as hostile input: bounded in depth and number, and of the shape that is expected."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")

#: More commas and opening brackets than this are in no reply that is meant well; 10,000 volumes have about 400,000.
_MOST_MARKS: Final = 1_000_000
_MARKS: Final = (b",", b"[", b"{")
_LONGEST: Final = 500


class Malformed(ValueError):
    """What was answered is not what was asked for; the message has nothing of the answer but where it is wrong."""


def document(content: bytes) -> Any:
    """A JSON document. Of a key that stands twice the last one counts; raises `Malformed`."""
    if sum(map(content.count, _MARKS)) > _MOST_MARKS:
        raise Malformed("the answer has too many parts")
    try:
        # It goes at most 200 deep, and takes neither NaN nor numbers of thousands of digits nor half of a surrogate.
        return pydantic_core.from_json(content, allow_inf_nan=False)
    except ValueError as problem:
        raise Malformed(f"the answer is no JSON document: {problem}") from None


def shaped(shape: TypeAdapter[T], answer: Any) -> T:
    """The answer as a shape; raises `Malformed` that names the first place where it differs."""
    try:
        return shape.validate_python(answer)
    except ValidationError as problem:
        first = problem.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:50] for part in first["loc"][:8]) or "all of it"
        raise Malformed(f"the answer has not the expected shape: {plain(where)}: {plain(first['msg'])}") from None


def plain(text: str, secrets: Iterable[str] = ()) -> str:
    """Foreign words for a message or a log: one line that can be printed, not too long, and without secrets."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    said = re.sub(r"\s+", " ", "".join(one if one.isprintable() else " " for one in text[: 2 * _LONGEST])).strip()
    return said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
