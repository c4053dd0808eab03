"""Holding a guest still, and never leaving it so: frozen by its agent, then paused by its monitor.

A mark in a file says that a guest may be held by us, and by what. It is there before the first request and goes only
when somebody has seen the guest free, whoever that is: who held it, the watchdog, or any process that looks later.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Conflict, GuestHeld, StillframeError, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.drivers.compute import Stillness
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Files
from stillframe.drivers.outcomes import Outcome, Seen, is_ours, is_over
from stillframe.drivers.qemu.agent import AgentRefused, AgentUnknown
from stillframe.drivers.qemu.commands import Paused, Qemu
from stillframe.drivers.qemu.declaration import Declaration
from stillframe.drivers.qemu.guard import Guard, Order
from stillframe.drivers.qemu.holders import Holders
from stillframe.drivers.qemu.monitor import ReplacedError
from stillframe.drivers.qemu.power import power_state
from stillframe.drivers.qemu.processes import is_gone

LOG = logging.getLogger(__name__)

NO_AGENT: Final = "the instance declares no guest agent (guest_agent_socket)"
# Whether any hooks of applications ran inside the guest cannot be known from here.
NO_HOOKS: Final = "nobody can tell from outside whether the applications in the guest took part"
#: Seconds; a freeze may take 20 of them.
LONGEST_HOLD: Final = 60.0
# What an agent answers to a freeze while another tool has the guest frozen (qga/main.c, qapi/qmp-dispatch.c).
_NOT_NOW: Final = "has been disabled"
_PAUSE_SECONDS: Final = 0.2


# Says whether the guest was held until then (None: nobody knows), and is since.
Release = Callable[[], tuple[bool | None, bool]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What may be ours to end; `token` tells one hold from the next, `process` is the QEMU process that it is in.

    `until`: the moment of the monotonic clock at which the watchdog lets it go. `alone`: nobody else held the guest as
    this hold began.
    """

    token: str
    paused: bool = True
    frozen: bool = True
    process: str | None = None
    until: float = 0.0
    alone: bool = True

    @classmethod
    def read(cls, content: bytes) -> Mark:
        """A mark of an earlier release, or one that cannot be read, says nothing: then both may be ours."""
        try:
            found = json.loads(content)
            token, process = str(found["token"]), found.get("process")
            return cls(token, bool(found["paused"]), bool(found["frozen"]), None if process is None else str(process))
        except (ValueError, LookupError, TypeError, AttributeError):
            return cls("")


class Holding:
    """Holds guests still one way or the other; `folder` has a mark for each that may be held.

    `seconds` bounds a release: beyond it, it is left to the watchdog and to whoever looks later. A guest that has been
    held for `longest` seconds is let go by the watchdog, whoever holds it.
    """

    def __init__(
        self,
        state: Path,
        files: Files,
        qemu: Qemu,
        guard: Guard,
        *,
        seconds: float = 30.0,
        longest: float = LONGEST_HOLD,
        lock_seconds: float = 2.0,
    ) -> None:
        self.folder = state / "quiesced"
        self._holders = Holders(state / "holding", files, lock_seconds)
        self._files = files
        self._qemu = qemu
        self._guard = guard
        self._seconds = seconds
        self._longest = longest

    @contextmanager
    def held(self, declaration: Declaration, socket: Path) -> Iterator[Stillness]:
        """Freeze and pause a running guest while the context is open.

        Raises `BackendError` if it was let go meanwhile, `GuestHeld` if nobody knows whether it is free afterwards,
        and `Unavailable`.
        """
        with self._holders.turn(declaration.id), self._holders.one_more(declaration.id) as alone:
            earlier = self._mark(declaration.id)
            if earlier is not None:
                self._end(declaration, earlier, stays=None if alone else earlier)
            before, reason = self._look(declaration)
            mark = self._begin(declaration, socket, frozen=before is Seen.FREE, alone=alone)
            # Of whoever may come back, whatever was seen of the guest until now is nothing that lasts.
            stays = None if alone else earlier or replace(mark, frozen=True)
            try:
                mark, stillness = self._freeze(declaration, mark, reason)
                mark, paused = self._pause(declaration, socket, mark)
                self._require_in_time(declaration, mark)
                yield stillness
            except BaseException as problem:
                self._let_go_after(declaration, mark, stays, problem)
                raise
            if not self._let_go(declaration, mark, stays, paused) or not self._stayed(socket, mark, paused):
                raise BackendError(
                    f"Instance '{declaration.name}' did not stay still while its disks were cut: somebody let it go "
                    f"meanwhile, as the watchdog does after {self._longest:g} s; repeat the cut."
                )

    def release(self, declaration: Declaration) -> None:
        """Let a guest go that may still be held by us; any other is left alone. Raises `GuestHeld`."""
        mark = self._mark(declaration.id)
        if mark is not None:
            self._end(declaration, mark, stays=mark if self._holders.any(declaration.id) else None)

    def release_abandoned(self, declaration: Declaration) -> None:
        """As `release`, if no process holds it that lives; raises `Conflict` if one does."""
        with self._holders.turn(declaration.id, 0.0) as ours:
            if not ours or self._holders.any(declaration.id):
                raise Conflict(
                    f"A process holds the guest of '{declaration.name}' still, or is letting it go; wait for it."
                )
            self.release(declaration)

    def abandoned(self) -> list[str]:
        """The ids of all instances whose guest may be held still, by no process that lives."""
        with translated("looking for guests that are held still"):
            noted = sorted(mark.name for mark in self.folder.iterdir()) if self.folder.is_dir() else []
        return [instance_id for instance_id in noted if not self._holders.any(instance_id)]

    def _look(self, declaration: Declaration) -> tuple[Seen, str]:
        """Whether the guest's file systems are frozen before we ask for it, and why there is no use in asking."""
        if declaration.guest_agent_socket is None:
            return Seen.UNKNOWN, NO_AGENT
        try:
            frozen = self._qemu.frozen(declaration.guest_agent_socket)
        except (Unavailable, BackendError) as problem:
            LOG.warning("'%s' is cut without freezing its file systems: %s", declaration.name, problem)
            return Seen.UNKNOWN, problem.message.rstrip(".")
        if frozen:
            return Seen.HELD, "another tool had frozen the guest's file systems, and may have thawed them at any time"
        return Seen.FREE, NO_HOOKS

    def _freeze(self, declaration: Declaration, mark: Mark, reason: str) -> tuple[Mark, Stillness]:
        if declaration.guest_agent_socket is None or not mark.frozen:
            return mark, Stillness(ConsistencyLevel.CRASH, reason)
        try:
            count = self._qemu.freeze(declaration.guest_agent_socket)
        except AgentUnknown as problem:
            raise AgentUnknown(
                f"{problem.message} Nothing was cut: a guest may freeze at any time after that. Take the snapshot "
                "again when the guest has less to write, see to its agent, or declare none."
            ) from None
        except (Unavailable, AgentRefused) as problem:
            if isinstance(problem, AgentRefused) and self._did_all_the_same(declaration.guest_agent_socket, problem):
                raise AgentUnknown(
                    f"{problem.message} They are frozen since, so that it did more than it says. Nothing was cut: see "
                    "to the agent in the guest, or declare none."
                ) from None
            LOG.warning("'%s' is cut without freezing its file systems: %s", declaration.name, problem)
            mark = replace(mark, frozen=is_ours(Seen.FREE, Outcome.REFUSED))
            self._note(declaration, mark)
            return mark, Stillness(ConsistencyLevel.CRASH, problem.message.rstrip("."))
        if not count:
            # Some agents count themselves frozen all the same.
            if not self._qemu.frozen(declaration.guest_agent_socket):
                mark = replace(mark, frozen=False)
                self._note(declaration, mark)
            return mark, Stillness(ConsistencyLevel.CRASH, "the guest agent found no file system to freeze")
        return mark, Stillness(ConsistencyLevel.FILESYSTEM, reason)

    def _did_all_the_same(self, agent: Path, refusal: AgentRefused) -> bool:
        """Whether a guest is frozen after a freeze that failed, and by that, though it was free before."""
        if _NOT_NOW in refusal.message:
            return False
        try:
            return self._qemu.frozen(agent)
        except (Unavailable, BackendError):
            return False

    def _pause(self, declaration: Declaration, socket: Path, mark: Mark) -> tuple[Mark, Paused]:
        paused = self._qemu.pause(socket, mark.process)
        before = Seen.FREE if paused.was == "running" else Seen.HELD
        if not is_ours(before, Outcome.DONE):
            mark = replace(mark, paused=False)
            self._note(declaration, mark)
        else:
            self._arm(declaration, mark, paused)
        return mark, paused

    def _require_in_time(self, declaration: Declaration, mark: Mark) -> None:
        """Raises `BackendError` for a guest that the watchdog has let go already, perhaps before it was paused."""
        if time.monotonic() > mark.until:
            raise BackendError(
                f"Instance '{declaration.name}' could not be held still within {self._longest:g} s; repeat the cut."
            )

    def _let_go(self, declaration: Declaration, mark: Mark, stays: Mark | None, paused: Paused | None = None) -> bool:
        """Let the guest go; whether it was held until then, and all the time since it was paused.

        Whoever holds it anew does not know what of it is ours. It may lose its own hold by this, and sees that.
        """
        found = self._mark(declaration.id)
        kept = self._end(declaration, mark, paused, stays=stays)
        return kept and found is not None and found.token == mark.token

    def _let_go_after(self, declaration: Declaration, mark: Mark, stays: Mark | None, problem: BaseException) -> None:
        try:
            self._let_go(declaration, mark, stays)
        except GuestHeld as held:
            if isinstance(problem, StillframeError):
                raise GuestHeld(f"{problem.message} {held.message}") from None
            raise

    def _stayed(self, socket: Path, mark: Mark, paused: Paused) -> bool:
        """Whether a guest that somebody else holds is still held; ours was looked at when we let it go."""
        return mark.paused or self._qemu.look(socket) == paused

    def _end(self, declaration: Declaration, mark: Mark, paused: Paused | None = None, *, stays: Mark | None) -> bool:
        """End what may be ours, until that is certain; whether the guest was held until then. Raises `GuestHeld`.

        `stays`: the mark of one who was stopped in the middle, and may hold the guest when it comes back.
        """
        end, kept, why = time.monotonic() + self._seconds, True, ""
        left = self._releases(declaration, mark, end, paused)
        while left:
            if is_gone(mark.process):
                # Whatever was held has gone with it; who runs in its place is nobody's that we hold.
                kept = False
                break
            for release in tuple(left):
                try:
                    held, still = release()
                except (Unavailable, BackendError) as problem:
                    why = problem.message
                    continue
                kept = kept and held is not False
                if is_over(Outcome.DONE, Seen.HELD if still else Seen.FREE):
                    left.remove(release)
                why = f"'{declaration.name}' says that it is still held."
            if left and self._is_off(declaration):
                kept = False
                break
            if left and time.monotonic() > end:
                raise GuestHeld(_held_still(declaration, mark, why))
            if left:
                time.sleep(_PAUSE_SECONDS)
        self._forget(declaration, mark, stays)
        return kept

    def _forget(self, declaration: Declaration, mark: Mark, stays: Mark | None) -> None:
        found = self._mark(declaration.id)
        if found is not None and found.token == mark.token:
            with translated("noting that a guest is held no longer"):
                if stays is None:
                    self._files.remove(self.folder / declaration.id)
                else:
                    self._write(declaration, stays)
        self._guard.disarm(mark.token)

    def _releases(self, declaration: Declaration, mark: Mark, end: float, paused: Paused | None) -> list[Release]:
        """What ends the hold."""
        monitor, agent = declaration.qmp_socket, declaration.guest_agent_socket
        found: list[Release] = []
        if mark.paused and monitor is not None:
            found.append(partial(self._resume, monitor, mark.process, paused))
        if mark.frozen and agent is not None:
            found.append(lambda: self._qemu.thaw(agent, max(1.0, end - time.monotonic())))
        return found

    def _resume(self, monitor: Path, process: str | None, paused: Paused | None) -> tuple[bool, bool]:
        try:
            done = self._qemu.resume(monitor, process)
        except ReplacedError:
            return False, False
        # A guest that ran in between, and was paused anew by somebody, has asked something of its disks, or it has
        # done nothing that a copy could show.
        return done.held and (paused is None or done.requests == paused.requests), done.still

    def _begin(self, declaration: Declaration, socket: Path, *, frozen: bool, alone: bool) -> Mark:
        process, until = self._qemu.process(socket), time.monotonic() + self._longest
        mark = Mark(secrets.token_hex(8), frozen=frozen, process=process, until=until, alone=alone)
        with translated("preparing the folder of the marks"):
            self._files.make_folder(self.folder)
        try:
            self._note(declaration, mark)
        except BaseException:
            # Nothing was asked of the guest yet.
            self._files.remove(self.folder / declaration.id)
            raise
        return mark

    def _note(self, declaration: Declaration, mark: Mark) -> None:
        with translated("noting what a guest is held by"):
            self._write(declaration, mark)
        self._arm(declaration, mark)

    def _arm(self, declaration: Declaration, mark: Mark, paused: Paused | None = None) -> None:
        monitor = declaration.qmp_socket if mark.paused else None
        agent = declaration.guest_agent_socket if mark.frozen else None
        path = self.folder / declaration.id
        self._guard.arm(
            Order(
                *(monitor, agent, path, mark.token, mark.process, mark.until, self._longest),
                alone=mark.alone,
                requests=None if paused is None else paused.requests,
            )
        )

    def _write(self, declaration: Declaration, mark: Mark) -> None:
        self._files.write(self.folder / declaration.id, json.dumps(asdict(mark)).encode())

    def _mark(self, instance_id: str) -> Mark | None:
        try:
            return Mark.read((self.folder / instance_id).read_bytes())
        except FileNotFoundError:
            return None

    def _is_off(self, declaration: Declaration) -> bool:
        try:
            return power_state(declaration, self._qemu) is PowerState.SHUTOFF
        except StillframeError:
            return False


def _held_still(declaration: Declaration, mark: Mark, why: str) -> str:
    ways = [
        *(["resume it by its monitor (cont)"] if mark.paused else []),
        *(["thaw it by its agent (guest-fsfreeze-thaw)"] if mark.frozen else []),
    ]
    return (
        f"The guest of '{declaration.name}' may still be held still: it was told to go on, and nobody has seen that it "
        f"does. {why} Stillframe goes on trying; if it does not get through, {' and '.join(ways)}, or restart the "
        "guest."
    )
