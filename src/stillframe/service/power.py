"""Starting and stopping instances in the background: accepted at once, one action at a time on an instance."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Final

from stillframe.domain.errors import Conflict, Interrupted, StillframeError, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.drivers.call import Call
from stillframe.drivers.compute import ComputeDriver
from stillframe.logs.context import about
from stillframe.posix import byte_locks, private

LOG = logging.getLogger(__name__)

# A guest may take its time to shut down, and a thread waits for it.
_AT_A_TIME: Final = 64
# Each that waits for a thread holds a file open.
_ACCEPTED: Final = 512
# From the first byte to the last, wherever that is.
_WHOLE: Final = (0, 0)
_LONGEST_STATE: Final = 32


class PowerAction(StrEnum):
    """What may be done; the values are the states of the task as Nova calls them (`OS-EXT-STS:task_state`)."""

    START = "powering-on"
    STOP = "powering-off"

    @property
    def wanted(self) -> PowerState:
        """What the instance is in after it."""
        return PowerState.ACTIVE if self is PowerAction.START else PowerState.SHUTOFF


class PowerLocks:
    """A lock for each instance that is being switched, seen by every process of this machine.

    They are files, locked by the kernel: none outlives the process that holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, instance_id: str, action: PowerAction) -> int | None:
        """Returns the descriptor that holds the lock, or None if somebody else has it."""
        private.make_folder(self._folder)
        path = self._path(instance_id)
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                byte_locks.lock(file, byte_locks.ALONE, *_WHOLE)
            except (BlockingIOError, PermissionError):
                os.close(file)
                return None
            # Whoever had it before may have removed it between the two calls; then nobody else sees this lock.
            if os.fstat(file).st_nlink:
                os.ftruncate(file, 0)
                os.pwrite(file, action.value.encode(), 0)
                return file
            os.close(file)

    def give_back(self, instance_id: str, file: int) -> None:
        with suppress(FileNotFoundError):
            self._path(instance_id).unlink()
        os.close(file)

    def holder(self, instance_id: str) -> str | None:
        """The state of the task that holds an instance, or None."""
        return _holder(self._path(instance_id))

    def holders(self) -> Callable[[str], str | None]:
        """Tells of any instance what `holder` would have told of it at this moment."""
        files = self._folder.iterdir() if self._folder.is_dir() else ()
        found = {path: _holder(path) for path in files}
        return lambda instance_id: found.get(self._path(instance_id))

    def _path(self, instance_id: str) -> Path:
        # An id may be longer than a name of a file, and have slashes.
        return self._folder / hashlib.sha256(instance_id.encode()).hexdigest()


def _holder(path: Path) -> str | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        # Only asked for: taking it, even for an instant, would turn an action away.
        if not byte_locks.is_locked(file, *_WHOLE):
            return None
        return os.pread(file, _LONGEST_STATE, 0).decode() or None
    finally:
        os.close(file)


class PowerActions:
    """Carries out what was accepted, and says of each instance what is under way; the outcome is in the log."""

    def __init__(self, compute: ComputeDriver, locks: PowerLocks, graceful_stop_seconds: float) -> None:
        self._compute = compute
        self._locks = locks
        self._graceful_stop_seconds = graceful_stop_seconds
        self._ending = threading.Event()
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="power")
        self._accepted: set[Future[None]] = set()

    def task_state(self, instance_id: str) -> str | None:
        """What is being done with an instance, as Nova calls it, or None."""
        return self._locks.holder(instance_id)

    def task_states(self) -> Callable[[str], str | None]:
        """Tells of any instance what is being done with it at this moment, as `task_state` does."""
        return self._locks.holders()

    def require_none(self, instance_id: str, verb: str) -> None:
        """Raises `Conflict`, in Nova's words, if the instance is being started or stopped."""
        state = self.task_state(instance_id)
        if state is not None:
            raise _busy(instance_id, verb, state)

    def begin(self, action: PowerAction, instance_id: str, request_id: str, check: Callable[[], None]) -> None:
        """Accept an action; `check` raises what speaks against it, and is asked when nobody else can begin one.

        Raises `Conflict` if another one is under way on the instance, `Unavailable` if too many are in all.
        """
        verb = action.name.lower()
        file = self._locks.take(instance_id, action)
        if file is None:
            raise _busy(instance_id, verb, self.task_state(instance_id) or "changing")
        try:
            check()
            self._submit(action, instance_id, request_id, file)
        except BaseException:
            self._locks.give_back(instance_id, file)
            raise

    def stop(self, seconds: float) -> bool:
        """Begin nothing more, give up what waits, and wait for the rest; False if something still runs after that."""
        self._ending.set()
        self._pool.shutdown(wait=False)
        with self._guard:
            open_ones = set(self._accepted)
        return not wait(open_ones, seconds).not_done

    def _submit(self, action: PowerAction, instance_id: str, request_id: str, file: int) -> None:
        with self._guard:
            if self._ending.is_set():
                raise Unavailable("The service is ending; try again when it is back.")
            if len(self._accepted) >= _ACCEPTED:
                raise Unavailable(f"{_ACCEPTED} instances are being started or stopped already; try again later.")
            future = self._pool.submit(self._carry_out, action, instance_id, request_id, file)
            self._accepted.add(future)
        future.add_done_callback(self._forget)

    def _forget(self, future: Future[None]) -> None:
        with self._guard:
            self._accepted.discard(future)

    def _carry_out(self, action: PowerAction, instance_id: str, request_id: str, file: int) -> None:
        call = Call(request_id, request_id, check=self._check, report=lambda _done, _all: None)
        started = time.monotonic()
        with about(request_id):
            LOG.info("instance %s: %s", instance_id, action.value)
            try:
                call.check()
                if action is PowerAction.START:
                    self._compute.start(call, instance_id)
                else:
                    self._compute.stop(call, instance_id, self._graceful_stop_seconds)
            except Interrupted:
                LOG.warning("instance %s: %s is given up, for the service ends", instance_id, action.value)
            except StillframeError as error:
                LOG.error("instance %s: %s failed: %s", instance_id, action.value, error.message)  # noqa: TRY400
            except Exception:
                LOG.exception("instance %s: %s broke off", instance_id, action.value)
            else:
                LOG.info("instance %s: %s is done after %.1f s", instance_id, action.value, time.monotonic() - started)
            finally:
                self._locks.give_back(instance_id, file)

    def _check(self) -> None:
        if self._ending.is_set():
            raise Interrupted("The service is ending.")


def _busy(instance_id: str, verb: str, task_state: str) -> Conflict:
    # In Nova's words, which its clients look for.
    return Conflict(f"Cannot '{verb}' instance {instance_id} while it is in task_state {task_state}")
