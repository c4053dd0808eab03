"""A section of the settings file, with its oslo.config options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oslo_config import cfg


@dataclass(frozen=True, slots=True)
class Group:
    """One section; without a name it is `[DEFAULT]`.

    `named_by` is the group and the option whose list names the sections `[NAME:...]`, all of them with these options.
    With `login`, keystoneauth's options for logging in are read from the section as well.
    """

    name: str | None
    options: Sequence[cfg.Opt]
    named_by: tuple[str, str] | None = None
    login: bool = False

    def section(self, name: str) -> str:
        """The section of one of the names in `named_by`."""
        return f"{self.name}:{name}"
