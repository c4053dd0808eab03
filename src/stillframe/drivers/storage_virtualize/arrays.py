"""All arrays of the settings, asked side by side: one that is silent keeps nobody from what lies on the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Final, Generic, TypeVar

from stillframe.domain.errors import NotFound, Refused, StillframeError, Unavailable
from stillframe.drivers.storage_virtualize.array import Array
from stillframe.drivers.storage_virtualize.objects import Vdisk

T = TypeVar("T")

#: How long a list that shows what lies on all arrays waits for them.
LIST_SECONDS: Final = 5.0
#: How long one command may take where all arrays are asked.
_COMMAND_SECONDS: Final = 10.0
#: After an array was silent for longer than this, only every so often somebody waits for it who has no need of it; and
#: after it could not be reached at all, for not so long: to learn that again takes a turn of the commands it is given.
_SLOW_SECONDS: Final = 2.0
_QUIET_SECONDS: Final = 15.0
_AWAY_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Place:
    """A volume's vdisk, and its array where that is known beforehand."""

    vdisk: str
    array: str | None


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What arrays answered, and why others did not, by their names."""

    given: dict[str, T] = field(default_factory=dict)
    missing: dict[str, StillframeError] = field(default_factory=dict)


@dataclass(slots=True)
class _Hearing:
    """Whether an array answers, as those know who have asked it of late; `pending` has when each question began."""

    pending: dict[object, float] = field(default_factory=dict)
    silent_until: float = 0.0


class Arrays:
    """Questions to several arrays at a time; each may be one of several commands.

    Where `arrays` are given they are needed, and each is asked. Without, all are; and then those that have just been
    silent count as silent without being waited for.
    """

    def __init__(self, arrays: Sequence[Array], *, list_seconds: float = LIST_SECONDS) -> None:
        self._arrays = {array.name: array for array in arrays}
        self._hearing = {array.name: _Hearing() for array in arrays}
        self._lock = threading.Lock()
        self.list_seconds = list_seconds

    def all(self) -> Sequence[Array]:
        return list(self._arrays.values())

    def has(self, name: str) -> bool:
        return name in self._arrays

    def at(self, place: Place) -> Sequence[Array] | None:
        """The array of a place, or None where it may be any; raises `NotFound` for one that the settings lack."""
        if place.array is None:
            return None
        if place.array not in self._arrays:
            raise NotFound(
                f"The settings have no array '{place.array}'; add it to them, or correct which vdisk is attached."
            )
        return [self._arrays[place.array]]

    def named(self, names: frozenset[str]) -> Sequence[Array]:
        """The arrays of these names."""
        return [array for array in self.all() if array.name in names]

    def ask(
        self, question: Callable[[Array], T], arrays: Sequence[Array] | None = None, seconds: float | None = None
    ) -> Answers[T]:
        """The answers of arrays; those that do not answer within `seconds` are missing, as are those that refuse."""
        found: Answers[T] = Answers()

        def bounded(array: Array) -> T:
            return question(array if arrays else array.within(_COMMAND_SECONDS))

        for name, answer in self._answers(bounded, arrays, seconds):
            if isinstance(answer, StillframeError):
                found.missing[name] = answer
            else:
                found.given[name] = answer
        return found

    def first(self, question: Callable[[Array], T], arrays: Sequence[Array] | None = None) -> T | None:
        """The first answer that is not None, or None; raises what keeps it from being known that there is none."""
        missing: StillframeError | None = None
        for _name, answer in self._answers(question, arrays, None):
            if isinstance(answer, StillframeError):
                missing = missing or answer
            elif answer is not None:
                return answer
        if missing is not None:
            raise missing
        return None

    def find(self, place: Place) -> tuple[Array, Vdisk] | None:
        """The array that has the vdisk, or None; raises as `locate`."""
        return self.locate([place]).get(place)

    def locate(self, places: Collection[Place]) -> dict[Place, tuple[Array, Vdisk]]:
        """The vdisks of these places that there are, by one command an array.

        Raises `NotFound` for an array that the settings do not have, `Refused` for a vdisk whose name is on several,
        and what keeps it from being known that there is none.
        """
        named = [self.at(place) for place in places]
        anywhere = any(arrays is None for arrays in named)
        asked = {array.name: array for arrays in named if arrays for array in arrays}

        def look(array: Array) -> dict[str, Vdisk]:
            return array.vdisks({place.vdisk for place in places if place.array in (None, array.name)})

        answers = self.ask(look, None, self.list_seconds) if anywhere else self.ask(look, list(asked.values()))
        found = {place: self._holders(place, answers) for place in places}
        return {place: holders[0] for place, holders in found.items() if holders}

    def _holders(self, place: Place, answers: Answers[dict[str, Vdisk]]) -> list[tuple[Array, Vdisk]]:
        vdisk = place.vdisk
        holders = [
            (self._arrays[name], vdisks[vdisk])
            for name, vdisks in sorted(answers.given.items())
            if place.array in (None, name) and vdisk in vdisks
        ]
        if len(holders) > 1:
            names = " and ".join(f"'{array.name}'" for array, _ in holders)
            raise Refused(
                f"The arrays {names} each have a vdisk '{vdisk}'; say where it is attached which one is meant."
            )
        missing = [error for name, error in answers.missing.items() if place.array in (None, name)]
        if not holders and missing:
            raise missing[0]
        return holders

    def _answers(
        self, question: Callable[[Array], T], arrays: Sequence[Array] | None, seconds: float | None
    ) -> Iterator[tuple[str, T | StillframeError]]:
        asked = list(self.all() if arrays is None else arrays)
        for array in asked if arrays is None and len(asked) > 1 else ():
            if not self._is_heard(array.name):
                asked.remove(array)
                yield array.name, Unavailable(f"Array '{array.name}' has just been silent.")
        if len(asked) == 1 and seconds is None:
            yield asked[0].name, self._answer(question, asked[0])
            return
        yield from self._side_by_side(question, asked, seconds)

    def _side_by_side(
        self, question: Callable[[Array], T], asked: Sequence[Array], seconds: float | None
    ) -> Iterator[tuple[str, T | StillframeError]]:
        end = None if seconds is None else time.monotonic() + seconds
        answers: SimpleQueue[tuple[str, T | StillframeError | BaseException]] = SimpleQueue()

        def run(array: Array) -> None:
            try:
                answers.put((array.name, self._answer(question, array)))
            except BaseException as error:  # noqa: BLE001  # raised in the thread that asked
                answers.put((array.name, error))

        for array in asked:
            target = copy_context().run
            threading.Thread(target=target, args=(run, array), name=f"array {array.name}", daemon=True).start()
        awaited = {array.name for array in asked}
        while awaited:
            try:
                name, answer = answers.get(timeout=None if end is None else max(0.0, end - time.monotonic()))
            except Empty:
                break
            awaited.remove(name)
            if isinstance(answer, BaseException) and not isinstance(answer, StillframeError):
                raise answer
            yield name, answer
        for name in sorted(awaited):
            yield name, Unavailable(f"Array '{name}' has not answered within {seconds:g} s.")

    def _answer(self, question: Callable[[Array], T], array: Array) -> T | StillframeError:
        hearing, mark, began = self._hearing[array.name], object(), time.monotonic()
        with self._lock:
            hearing.pending[mark] = began
        silent_until = 0.0
        try:
            return question(array)
        except StillframeError as error:
            if isinstance(error, Unavailable):
                now = time.monotonic()
                silent_until = now + (_QUIET_SECONDS if now - began > _SLOW_SECONDS else _AWAY_SECONDS)
            return error
        finally:
            with self._lock:
                del hearing.pending[mark]
                hearing.silent_until = silent_until

    def _is_heard(self, name: str) -> bool:
        """Whether an array may be asked by somebody who has no need of it; after a silence, by one at a time."""
        now = time.monotonic()
        with self._lock:
            hearing = self._hearing[name]
            if now < hearing.silent_until or any(now - began > _SLOW_SECONDS for began in hearing.pending.values()):
                return False
            if hearing.silent_until:
                hearing.silent_until = now + _QUIET_SECONDS
            return True
