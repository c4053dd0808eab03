"""The error tree is one tree, as its docstring draws it, with a code of its own for each kind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from stillframe.domain import errors
from stillframe.domain.errors import InvalidInput, StillframeError

if TYPE_CHECKING:
    from collections.abc import Iterator


def tree(kind: type[StillframeError]) -> Iterator[type[StillframeError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child)


KINDS = list(tree(StillframeError))


def test_codes_are_unique_and_for_programs() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_its_own_code(kind: type[StillframeError]) -> None:
    assert "code" in vars(kind)


def test_every_exception_of_the_module_is_in_the_tree() -> None:
    found = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)}
    assert found == set(KINDS)


def test_the_docstring_draws_the_tree() -> None:
    drawn: list[tuple[int, str, str]] = []
    for line in str(errors.__doc__).splitlines():
        match = re.match(r"^    ([│├└─ ]*)(\w+) +([a-z-]+) {2,}", line)
        if match:
            drawn.append((len(match[1]) // 4, match[2], match[3]))
    assert {(name, code) for _depth, name, code in drawn} == {(kind.__name__, kind.code) for kind in KINDS}
    above: dict[int, str] = {}
    for depth, name, _code in drawn:
        above[depth] = name
        parent = getattr(errors, name).__bases__[0].__name__
        assert parent == (above[depth - 1] if depth else "Exception")


@pytest.mark.parametrize("kind", KINDS)
def test_the_message_is_what_is_shown(kind: type[StillframeError]) -> None:
    error = kind("what went wrong")
    assert (str(error), error.message) == ("what went wrong", "what went wrong")


def test_bad_input_says_where() -> None:
    error = InvalidInput("must not be empty", "vm-snapshot.name")
    assert (error.path, error.message) == ("vm-snapshot.name", "vm-snapshot.name: must not be empty")
    assert InvalidInput("must be an object").path is None
