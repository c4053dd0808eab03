"""What all processes of a state folder share of an array: one token, and how many commands it is given a second.

An array has few tokens to give, and answers 429 to whoever asks too much of it. So the processes keep a token, and the
times of their last commands, in two files that only their user can read.
"""

from __future__ import annotations

import fcntl
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Final, TypeVar
from urllib.parse import quote

from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.posix.private import make_folder, opener

T = TypeVar("T")

#: So many commands a second are kept free for cuts: a guest that is held still must not wait for its turn.
KEPT_FOR_CUTS: Final = 2
#: A cut that has not come by then is not to be expected any more.
LONGEST_RESERVATION: Final = 60.0


@dataclass(frozen=True, slots=True)
class Turn:
    """How a command comes to its turn: it waits unless it is `urgent`; `reserved` is what `Shared.reserve` has kept."""

    urgent: bool = False
    reserved: float | None = None


TAKING_TURNS: Final = Turn()
AT_ONCE: Final = Turn(urgent=True)

_LOOK_SECONDS: Final = 0.01
# Where nothing was sent of late and all the same is reserved too much.
_AGAIN_SECONDS: Final = 0.1


class _Kept(TypedDict):
    token: Annotated[str, Field(pattern=r"^[!-~]{1,4096}$")]
    of: str


_TOKEN: Final = TypeAdapter(_Kept)
_SENT: Final = TypeAdapter(list[float])


class Shared:
    """One array's; `commands_a_second` is for all processes together. Times are the machine's since its start."""

    def __init__(
        self,
        folder: Path,
        name: str,
        address: str,
        commands_a_second: int,
        longest_reservation: float = LONGEST_RESERVATION,
    ) -> None:
        self._longest = longest_reservation
        self._name = name
        self._all = max(1, commands_a_second)
        self._limit = max(1, commands_a_second - KEPT_FOR_CUTS)
        self._address = address
        path = folder / quote(name, safe="")
        self._folder, self._tokens, self._sent = folder, path.with_suffix(".token"), path.with_suffix(".commands")

    def take_turn(self, end: float, turn: Turn) -> None:
        """Wait until one more command may be sent; an urgent one need not wait, but counts. Raises `Unavailable`."""

        def take(now: float, taken: list[float]) -> list[float] | None:
            if turn.reserved in taken:
                taken.remove(turn.reserved)
            elif not turn.urgent and len(taken) >= self._limit:
                return None
            return [*taken, now]

        self._change(end, take)

    def reserve(self, count: int, end: float) -> Turn:
        """Wait until so many commands fit into any second to come, and keep room for them; raises `Unavailable`.

        At most half of what an array takes is kept at a time, or nobody could prepare anything meanwhile.
        """
        until = 0.0

        def keep(now: float, taken: list[float]) -> list[float] | None:
            nonlocal until
            kept = sum(one > now for one in taken)
            if (kept and kept + count > self._all // 2) or (taken and len(taken) + count > self._all):
                return None
            until = now + self._longest
            return [*taken, *[until] * count]

        self._change(end, keep)
        return Turn(urgent=True, reserved=until)

    def fill(self, end: float) -> None:
        """Let nobody take a turn for a second: the array gets too much, with what comes from other hosts."""
        self._change(end, lambda now, taken: [*taken, *[now] * self._limit])

    def _change(self, end: float, change: Callable[[float, list[float]], list[float] | None]) -> None:
        """Write down what `change` makes of the turns that are taken, once it makes anything of them.

        They are the times of what was sent in the last second, and times to come for what is reserved until then.
        """
        while True:
            with self._locked(self._sent, end) as file:
                now = time.monotonic()
                # What is later than that is of an earlier start of the machine.
                taken = [one for one in _read(file, _SENT) or [] if now - 1 < one <= now + self._longest]
                changed = change(now, list(taken))
                if changed is not None:
                    _write(file, changed)
                    return
            due = min((one + 1 for one in taken if one <= now), default=now + _AGAIN_SECONDS)
            if due > end:
                raise Unavailable(f"Array '{self._name}': more commands are waiting for it than it takes in that time.")
            time.sleep(max(0.0, due - now))

    def token(self, stale: str, password: str, sign_in: Callable[[], str], end: float) -> str:
        """The token that all use who have this password; where that is the stale one, one signs in for all."""
        with self._locked(self._tokens, end) as file:
            kept = _read(file, _TOKEN)
            if kept is not None and kept["token"] != stale and kept["of"] == self._of(kept["token"], password):
                return kept["token"]
            token = sign_in()
            _write(file, {"token": token, "of": self._of(token, password)})
            return token

    def _of(self, token: str, password: str) -> str:
        # By the token: of the password alone the file must not tell anything.
        return hmac.new(token.encode(), f"{self._address} {password}".encode(), "sha256").hexdigest()

    @contextmanager
    def _locked(self, path: Path, end: float) -> Iterator[IO[str]]:
        try:
            make_folder(self._folder)
            file = open(path, "a+", encoding="utf-8", opener=opener)  # noqa: SIM115  # closed below
        except OSError as problem:
            raise BackendError(
                f"Array '{self._name}': what processes share about it cannot be kept in '{path}': {problem.strerror}; "
                "see that the service's user may write there."
            ) from None
        with file:
            while not _lock(file):
                if time.monotonic() >= end:
                    raise Unavailable(f"Array '{self._name}': another process of this service has not let go in time.")
                time.sleep(_LOOK_SECONDS)
            # The lock goes with the file's being closed.
            yield file


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: IO[str], shape: TypeAdapter[T]) -> T | None:
    """What is in the file, or None where a process died over it, or another release wrote it."""
    file.seek(0)
    try:
        return shape.validate_json(file.read())
    except (ValidationError, UnicodeDecodeError):
        return None


def _write(file: IO[str], what: object) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(what))
    file.flush()
