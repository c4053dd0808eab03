"""A test is named by what it is about and what is true of that: the subject comes first, in functions and in files."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
SUITES: Final = ROOT / "src" / "stillframe" / "testing"
#: Words that no subject begins with: they say when, where or how; that something ought to be; or name nothing yet.
CIRCUMSTANCES: Final = re.compile(
    r"(?:after|also|although|always|apart|as|at|because|before|by|can|cannot|could|during|for|from|if|in|into|must"
    r"|never|nor|now|of|on|once|ought|shall|should|since|so|still|that|then|there|these|this|though|to|under"
    r"|unless|until|upon|when|where|whether|while|will|with|within|without|works|would)$"
)
#: What a reader would be told to do, where a name should say what is.
IMPERATIVES: Final = re.compile(
    r"(?:add|accept|allow|apply|assert|avoid|build|call|check|compare|create|cut|delete|deny|detect|do|does|ensure"
    r"|expect|fail|find|fix|freeze|get|give|handle|have|ignore|is|keep|leave|list|load|look|make|manage|parse"
    r"|pass|perform|prevent|raise|read|refuse|reject|remove|return|roll|run|see|send|set|show|start|stop|support"
    r"|take|test|try|update|use|validate|verify|wait|work|write)$"
)
#: What names nothing by itself, and something within a class that is named after it.
PRONOUNS: Final = re.compile(r"(?:it|its|their|them|they)$")


def files() -> Iterator[Path]:
    for folder in (ROOT / "tests", SUITES):
        yield from (path for path in folder.rglob("*.py") if "node_modules" not in path.parts)


def named() -> Iterator[tuple[str, list[str], bool]]:
    """Where each test is, the words of its name, and whether it is in a class."""
    for path in files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inside = {id(one) for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for one in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
                words = node.name.removeprefix("test").strip("_").split("_")
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", words, id(node) in inside


def names_no_subject(word: str) -> bool:
    return any(words.match(word) for words in (CIRCUMSTANCES, IMPERATIVES))


def test_the_name_of_a_test_says_its_subject_first() -> None:
    found = list(named())
    assert len(found) > 1000
    assert [where for where, words, _ in found if names_no_subject(words[0])] == []
    assert [where for where, words, owned in found if PRONOUNS.match(words[0]) and not owned] == []
    assert [where for where, words, _ in found if len(words) == 1] == [], "nothing is said of the subject"


def test_a_file_of_tests_is_named_after_its_subject() -> None:
    names = {path: path.stem.split("_")[1] for path in files() if path.name.startswith("test_")}
    assert len(names) > 100
    assert [str(path) for path, word in names.items() if names_no_subject(word) or PRONOUNS.match(word)] == []
