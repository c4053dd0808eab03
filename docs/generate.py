#!/usr/bin/env python3
"""Makes the pages of docs/reference from the code, so that they cannot say anything else than the code does.

`docs/generate.py` writes them; `docs/generate.py --check` changes nothing and fails if a page is not up to date.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from _generate import api, cli, errors, metrics, policies, settings, statuses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_FOLDER: Final = Path(__file__).resolve().parent / "reference"
_NOTE: Final = "<!-- Made from the code by docs/generate.py; do not edit. -->"

PAGES: Final[Mapping[str, Callable[[], Iterable[str]]]] = {
    "api.md": api.page,
    "cli.md": cli.page,
    "errors.md": errors.page,
    "metrics.md": metrics.page,
    "policy.md": policies.page,
    "settings.md": settings.page,
    "statuses.md": statuses.page,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the pages; the exit code is 1 if one is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, fail if a page is stale")
    chosen = parser.parse_args(arguments)
    stale = []
    for name, make in PAGES.items():
        path, text = _FOLDER / name, "\n".join([_NOTE, "", *make()]).rstrip() + "\n"
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not chosen.check:
            path.write_text(text, encoding="utf-8")
    if stale and chosen.check:
        sys.stderr.write(f"stale pages in {_FOLDER}: {', '.join(stale)}; run docs/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
