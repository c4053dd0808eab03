"""One word a thing: the code uses the words of the glossary, and the words that gave way do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "stillframe"
GLOSSARY: Final = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS: Final = re.findall(r"^## (.+)$", GLOSSARY, flags=re.MULTILINE)

#: Words that others took the place of, in names of modules, classes, functions and variables.
GIVEN_UP: Final = {
    "border": "error translation",
    "hasty": "retry policy",
    "lifeline": "watchdog client",
    "passport": "credentials",
    "gathering": "batching",
    "sight": "visibility",
    "turnstile": "claim lock",
    "volume_snapshot_id": "copy id",
}
#: Where a given-up word is what somebody else calls it.
KEPT: Final = {
    "turnstile": {"store/migrations/versions/0002_claims.py"},  # the table has its name in databases that there are
}
#: Classes outside of the platforms' packages that have a name together, and why.
TOGETHER: Final = {
    "Action": "a key of a body in the API, a kind of operation in the domain",
    "Api": "an API of the cloud's by its paths and by its microversion, and the command that serves both",
    "ListQuery": "the query of a list as it is sent, and as it is looked up",
    "Nothing": "an empty body, and an operation of which nothing is known but that it failed",
    "Outcome": "of a call to a platform, of a step, and of a removal",
    "Policy": "who may do what, and what surrounds the calls of drivers",
    "Presence": "the port, and what fills it",
    "UpdatingSnapshots": "a step by the name that the API shows",
    "Witness": "the port, and what fills it",
}


@cache
def modules() -> dict[str, str]:
    """The source of each module, by its path in the package."""
    return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}


def parts(name: str) -> set[str]:
    """The words that a name is made of."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def names(path: str) -> set[str]:
    """All names in a module, with its own."""
    tokens = tokenize.generate_tokens(io.StringIO(modules()[path]).readline)
    return {token.string for token in tokens if token.type == tokenize.NAME} | set(path.removesuffix(".py").split("/"))


def classes() -> dict[str, list[str]]:
    """Where there are classes of a name, outside of the packages of platforms, which know nothing of each other."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, source in modules().items():
        if not re.match(r"drivers/[a-z_]+/", path):
            for node in ast.parse(source).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    found[node.name].append(path)
    return found


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_the_glossary_is_used_in_the_code(word: str) -> None:
    spaced = re.compile(r"[\s_-]?".join(re.escape(part) for part in word.lower().split()))
    assert [path for path, source in modules().items() if spaced.search(source.lower())], f"nobody says {word}"


def test_the_words_of_the_glossary_are_in_order_and_said_once() -> None:
    assert sorted(WORDS, key=str.lower) == WORDS
    assert len({word.lower() for word in WORDS}) == len(WORDS)


@pytest.mark.parametrize("word", sorted(GIVEN_UP))
def test_a_word_that_gave_way_does_not_come_back(word: str) -> None:
    used = {path for path in modules() if any(word in parts(name) for name in names(path))}
    said = {path for path, source in modules().items() if re.search(rf"\b{word}s?\b", source, flags=re.IGNORECASE)}
    kept = KEPT.get(word, set())
    assert (used - kept, said - kept - {"store/tables.py"}) == (set(), set()), f"it is called {GIVEN_UP[word]}"


def test_a_class_has_its_name_alone() -> None:
    found = {name: paths for name, paths in classes().items() if len(paths) > 1}
    assert sum(map(len, classes().values())) > 100
    assert found.keys() <= TOGETHER.keys(), {name: paths for name, paths in found.items() if name not in TOGETHER}
