"""The documentation: its reference is up to date, its links lead somewhere, its words are explained."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted(DOCS.rglob("*.md"))
LINKED: Final = (*PAGES, ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "changelog.d").glob("*.md"))
KINDS: Final = frozenset({"added", "changed", "fixed", "removed", "security", "upgrade"})

_LINK: Final = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING: Final = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_FENCE: Final = re.compile(r"^( *)```.*?^\1```$", re.MULTILINE | re.DOTALL)

TERMS: Final = (
    "array",
    "consistency group",
    "reverse mapping",
    "vdisk",
    "attachment",
    "attempt",
    "consistency level",
    "cut",
    "cut window",
    "deadline",
    "driver",
    "extension",
    "fault",
    "fence",
    "filter",
    "FlashCopy mapping",
    "flow",
    "instance",
    "instance lock",
    "instance snapshot",
    "janitor",
    "leftover",
    "lock",
    "operation",
    "point of no return",
    "project",
    "quiesce",
    "reimage",
    "restore",
    "retry",
    "revert",
    "rollback",
    "safety copy",
    "service user",
    "status",
    "step",
    "strategy",
    "token",
    "volume",
    "volume snapshot",
    "watchdog",
    "window",
)


def test_the_reference_is_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _links(page):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert not broken


def test_every_page_can_be_reached_from_the_map() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        found = [(page.parent / target.partition("#")[0]).resolve() for target in _links(page)]
        waiting += [one for one in found if one.suffix == ".md" and DOCS in one.parents]
    assert set(PAGES) <= seen


def test_the_glossary_has_every_term_once_and_in_order() -> None:
    headings = _HEADING.findall((DOCS / "glossary.md").read_text(encoding="utf-8"))[1:]
    assert set(TERMS) <= set(headings)
    assert headings == sorted(set(headings), key=str.lower)


def test_decisions_have_numbers_of_their_own_and_are_complete() -> None:
    pages = sorted(page for page in (DOCS / "adr").glob("*.md") if page.name != "README.md")
    # A number is given when a decision is taken up, and they are not written in that order.
    assert len({page.name[:4] for page in pages}) == len(pages)
    for page in pages:
        title, *parts = _HEADING.findall(page.read_text(encoding="utf-8"))
        assert title.startswith(f"{page.name[:4]}: ")
        assert [part for part in parts if part != "Alternatives"] == ["Context", "Decision", "Consequences"]


def test_every_line_about_trust_names_tests_that_exist() -> None:
    rows = [
        line
        for line in (DOCS / "explanation" / "trust.md").read_text(encoding="utf-8").splitlines()
        if line[:2] == "| "
    ]
    named = [re.findall(r"`([a-z_/.:]+)`", row.rsplit("|", 2)[1]) for row in rows]
    assert sum(map(len, named)) > 30
    for name in (name for names in named for name in names):
        path, _, test = name.partition("::")
        found = ROOT / "tests" / path
        assert found.exists(), name
        assert not test or f"def {test}(" in found.read_text(encoding="utf-8"), name


def test_fragments_of_the_changelog_are_of_a_known_kind() -> None:
    for path in (ROOT / "changelog.d").iterdir():
        if path.name != "README.md":
            assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(sorted(KINDS))})\.md", path.name), path.name


def _links(page: Path) -> Iterator[str]:
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return (target for target in _LINK.findall(text) if "://" not in target and not target.startswith("mailto:"))


def _anchors(page: Path) -> frozenset[str]:
    """The anchors that headings get: small letters, without punctuation, hyphens for blanks."""
    if page.suffix != ".md":
        return frozenset()
    headings = _HEADING.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))
    return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
