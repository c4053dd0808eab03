"""The settings and rules that the documents show: each can be used as it stands there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import pytest

from stillframe.domain.errors import InvalidInput
from stillframe.service.policy import Policy
from stillframe.settings import GROUPS, load, spelling
from stillframe.settings.extensions import groups, installed
from tests.docs.test_generated import LINKED, ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BLOCK: Final = re.compile(r"^( *)```ini\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HERE: Final = re.compile(r"^.*>.*\.conf\"? <<'?(\w+)'?$\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_RULES: Final = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VARIABLE: Final = re.compile(r"\bOS_[A-Z_]+?__[A-Z_]+\b")
#: What begins with the name of another file, is that one's.
_NAMED: Final = re.compile(r"# (?:\S*/)?([\w@.-]+)\n")
_OTHERS: Final = frozenset({"api-paste.ini", "cinder.conf", "local.conf", "stillframe.service"})

TEXTS: Final = (*LINKED, *sorted((ROOT / "examples").iterdir()), *sorted((ROOT / "deploy").rglob("*.*")))


def _examples() -> Iterator[tuple[str, str]]:
    for path in TEXTS:
        text = path.read_text(encoding="utf-8")
        blocks = [found[1] for found in (*_BLOCK.findall(text), *_HERE.findall(text))]
        for number, block in enumerate([text] if path.suffix == ".conf" and path.parent.name == "examples" else blocks):
            named = _NAMED.match(block)
            if named is None or named[1] not in _OTHERS:
                yield f"{path.relative_to(ROOT)}-{number}", block


ALL: Final = (*GROUPS, *groups(installed()))
EXAMPLES: Final = dict(_examples())


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_of_the_settings_can_be_used(example: str, tmp_path: Path) -> None:
    file = tmp_path / "stillframe.conf"
    # What a shell would put in.
    filled = EXAMPLES[example].replace("$endpoint", "https://127.0.0.1:7443")
    file.write_text(re.sub(r"\$\{?\w+\}?", "1", filled))
    spelling.check([str(file)], ALL, {})


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) > 20
    with pytest.raises(InvalidInput):
        spelling.check([str(ROOT / "README.md")], ALL, {})


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_variable_that_is_named_is_a_setting(page: Path) -> None:
    for variable in _VARIABLE.findall(page.read_text(encoding="utf-8")):
        try:
            spelling.check([], ALL, {variable: "true"})
        except InvalidInput as refused:
            # A value of the wrong kind is looked at only where there is such an option.
            assert "has to be" in refused.message, refused.message  # noqa: PT017


def test_every_example_of_a_policy_can_be_used(tmp_path: Path) -> None:
    found = [
        block
        for page in LINKED
        for block in _RULES.findall(page.read_text(encoding="utf-8"))
        if "policy.yaml" in block.split("\n", 1)[0]
    ]
    assert found
    for rules in found:
        (tmp_path / "policy.yaml").write_text(rules)
        (tmp_path / "stillframe.conf").write_text(f"[oslo_policy]\npolicy_file = {tmp_path}/policy.yaml\n")
        Policy(load([str(tmp_path / "stillframe.conf")]).conf).load()
