"""One word a thing: the code uses the words of the glossary, and the words that gave way do not come back."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGE: Final = ROOT / "src" / "stillframe"
GLOSSARY: Final = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS: Final = re.findall(r"^## (.+)$", GLOSSARY, flags=re.MULTILINE)

#: Where nothing says a word that another took the place of.
TREES: Final = ("src", "tests", "docs", "deploy", "examples", "benchmarks", "changelog.d")
#: Words that others took the place of, in names and in prose.
GIVEN_UP: Final = {
    "border": "error translation",
    "hasty": "retry policy",
    "lifeline": "watchdog client",
    "passport": "credentials",
    "gathering": "batching",
    "scrap": "leftover",
    "sight": "visibility",
    "turnstile": "claim lock",
}
#: Words that others took the place of in the names of the package; in prose they may mean something else.
GIVEN_UP_IN_NAMES: Final = {
    "patience": "timeout",
    "remains": "leftovers",
    "volume_snapshot_id": "copy id",
}
#: Where a given-up word is what somebody else calls it.
KEPT: Final = {
    # The value of a label that metrics have, and of a column that the command line shows.
    "scrap": {"src/stillframe/domain/leftover.py", "tests/cli/test_repairs.py"},
    # The table has its name in databases that there are.
    "turnstile": {"src/stillframe/store/migrations/versions/0002_claims.py", "src/stillframe/store/tables.py"},
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
    "Witness": "the port, and what fills it",
}


@cache
def modules() -> dict[str, str]:
    """The source of each module, by its path in the package."""
    return {str(file.relative_to(PACKAGE)): file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py")}


def parts(text: str) -> set[str]:
    """The words that a name or a text is made of."""
    return {part.lower() for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}


@cache
def vocabularies() -> dict[str, set[str]]:
    """The words of each file of ours that is text, with those of its path."""
    found: dict[str, set[str]] = {}
    for file in (*(file for tree in TREES for file in (ROOT / tree).rglob("*")), *ROOT.glob("*.md"), ROOT / "Makefile"):
        if file.is_file() and "node_modules" not in file.parts and file != Path(__file__):
            path = str(file.relative_to(ROOT))
            with suppress(UnicodeDecodeError):
                found[path] = parts(path) | parts(file.read_text(encoding="utf-8"))
    return found


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
    said = {path for path, found in vocabularies().items() if found & {word, f"{word}s"}}
    assert said - KEPT.get(word, set()) == set(), f"it is called {GIVEN_UP[word]}"
    assert KEPT.get(word, set()) <= said


@pytest.mark.parametrize("word", sorted(GIVEN_UP_IN_NAMES))
def test_a_name_that_gave_way_does_not_come_back(word: str) -> None:
    used = {path for path in modules() if any(word in {name, *parts(name)} for name in names(path))}
    assert used == set(), f"it is called {GIVEN_UP_IN_NAMES[word]}"


def test_a_class_has_its_name_alone() -> None:
    found = {name: paths for name, paths in classes().items() if len(paths) > 1}
    assert sum(map(len, classes().values())) > 100
    assert found.keys() <= TOGETHER.keys(), {name: paths for name, paths in found.items() if name not in TOGETHER}
