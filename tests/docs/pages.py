"""The blocks of commands of the documents, as they are printed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT: Final = Path(__file__).resolve().parents[2]
_BLOCK: Final = re.compile(
    r"^(?: *<!-- (?P<how>played|not played): (?P<why>.+?) -->\n)?"
    r"(?P<indent> *)```console\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """Commands of a page, below the heading `section`.

    `how` and `why` are what the comment above them says, if there is one.
    """

    where: str
    section: str
    how: str
    why: str
    text: str

    @property
    def played(self) -> bool:
        return self.how != "not played" and not (self.why == "as root" and os.geteuid() != 0)

    def script(self, names: Mapping[str, str]) -> str:
        text = self.text
        for printed, meant in names.items():
            text = text.replace(printed, meant)
        wanted = re.match(r"exit code (\d+)", self.why)
        if wanted:
            text = f"set +e\n{text}\n[ $? = {wanted[1]} ] || exit 99\nset -e"
        return f"echo '=== {self.where}'\n{text}\n"


def blocks(page: str) -> Iterator[Block]:
    content = (ROOT / page).read_text(encoding="utf-8")
    for found in _BLOCK.finditer(content):
        line = content.count("\n", 0, found.start("text"))
        section = _HEADING.findall(content, 0, found.start())
        yield Block(
            f"{page}:{line}",
            section[-1] if section else "",
            found["how"] or "played",
            found["why"] or "",
            found["text"],
        )
