"""A filter of ours in the api-paste.ini of Nova or Cinder, right behind the one that makes the request's context."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Filter", "write_paste"]


@dataclass(frozen=True)
class Filter:
    """A paste filter: its factory (`stillframe.filters:nova`) and its options (`{"endpoint": "http://..."}`)."""

    factory: str
    options: Mapping[str, str] = field(default_factory=dict)


def write_paste(stock: Path, target: Path, extra: Filter | None) -> None:
    """Write the service's own api-paste.ini, with the extra filter in each pipeline that knows tokens."""
    text = stock.read_text()
    if extra is not None:
        text, count = re.subn(r"^(keystone\w* = .*\bkeystonecontext)\b", r"\1 stillframe", text, flags=re.MULTILINE)
        if not count:
            raise RuntimeError(f"{stock} has no pipeline with keystonecontext")
        options = "".join(f"{name} = {value}\n" for name, value in extra.options.items())
        text += f"\n[filter:stillframe]\npaste.filter_factory = {extra.factory}\n{options}"
    target.write_text(text)
