"""Whether the service's user on an array may do what the driver asks for, seen before anything is touched.

What each role may do: https://www.ibm.com/docs/en/flashsystem-5x00/8.7.x?topic=access-users. How an array tells one:
https://www.ibm.com/docs/en/flashsystem-5x00/9.1.3?topic=commands-lscurrentuser.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from stillframe.domain.errors import NotSupported, Refused
from stillframe.drivers.problems import Problem
from stillframe.drivers.storage_virtualize import objects
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.arrays import Arrays
from stillframe.drivers.storage_virtualize.options import Strategy

#: So long a role that will do is not asked for again; one that will not is asked for each time.
_SECONDS: Final = 600.0
#: Of the roles that are known not to do, by their letters; of all others an array has to say so itself.
_LOOK_ONLY: Final = frozenset({"monitor", "service"})
_NO_VOLUMES: Final = {"copyoperator": "make", "restrictedadmin": "remove", "restrictedadministrator": "remove"}


class Roles:
    """What is known of the roles on arrays, for copies that are made in one way or the other."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        self._good: dict[str, float] = {}

    def require(self, arrays: Iterable[Array]) -> None:
        """Raises `Refused` if the service's user on one of these is known not to be allowed what it needs."""
        for array in {one.name: one for one in arrays}.values():
            if time.monotonic() - self._good.get(array.name, float("-inf")) < _SECONDS:
                continue
            problem = self._problem(array)
            if problem is not None:
                raise Refused(f"{problem.what[0].upper()}{problem.what[1:]}; {problem.mend}.")
            self._good[array.name] = time.monotonic()

    def problems(self, arrays: Arrays) -> Iterator[Problem]:
        """The same of all arrays; of those that do not answer soon nobody can tell."""
        found = arrays.ask(self._problem, None, arrays.list_seconds)
        yield from (problem for _name, problem in sorted(found.given.items()) if problem is not None)
        for name, error in sorted(found.missing.items()):
            what = f"nobody can tell which role the service's user has on array '{name}': {error.message}"
            yield Problem(what, "see that it answers")

    def _problem(self, array: Array) -> Problem | None:
        try:
            role = array.ask(objects.role, "lscurrentuser")
        except NotSupported:
            return None
        lack = self._lack("".join(filter(str.isalnum, role.lower())))
        if lack is None:
            return None
        return Problem(
            f"the service's user on array '{array.name}' has the role {role}, which may {lack}",
            "give it the role Administrator (chuser -usergrp Administrator USER), and ask again",
            grave=True,
        )

    def _lack(self, role: str) -> str | None:
        if role in _LOOK_ONLY:
            return "look and change nothing"
        if role in _NO_VOLUMES and self._strategy is not Strategy.SNAPSHOTS:
            return f"not {_NO_VOLUMES[role]} volumes, of which copies consist"
        return None
