"""A state folder as a witness of the database: it remembers what an older state that is put back does not know.

A dump that is put back is, to itself, the truth: its open operations would go on, and its failed restores could be
retried, over whatever has been written since. See `stillframe.domain.epoch` for how that is found out.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import uuid
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from stillframe.domain.epoch import Memory, Standing, judge
from stillframe.domain.errors import Conflict, Damaged, OlderDatabase
from stillframe.posix import private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stillframe.store.epochs import EpochStore

LOG = logging.getLogger(__name__)

_NAME: Final = "witness.json"
_LOCK: Final = "witness.lock"
_LONGEST: Final = 4096
ACCEPT: Final = "stillframe db accept-older"


class Witness:
    """Keeps a state folder and the database in step; several processes may have the same folder."""

    def __init__(self, folder: Path, epochs: EpochStore) -> None:
        self._folder = folder
        self._epochs = epochs
        self._untold = True

    def note(self) -> None:
        """Compare what the folder remembers with the database, and have it remember this moment.

        If an older state of the database was put back, that is noted there, and holds for all processes: what is open
        in it is settled as failed. Raises `OlderDatabase` if it is another database, which is left as it is.
        """
        try:
            with self._alone() as alone:
                if alone:
                    self._compare()
        except OSError as error:
            if self._untold:
                LOG.warning("the state folder cannot be a witness of the database: %s", error.strerror)
            self._untold = False
        except Conflict as error:
            if isinstance(error, OlderDatabase):
                raise
            LOG.info("the witness looks again later: %s", error)

    def standing(self) -> Standing:
        """What the database is to the folder; raises `Damaged`."""
        while True:
            memory = self.memory()
            found = judge(memory, self._epochs.marks(memory.folder if memory else None))
            # Another process may have noted the next marks between the two looks.
            if found is Standing.SAME or memory == self.memory():
                return found

    def doubts(self) -> bool:
        """Whether the database is, or may be, an older state of itself that nobody has accepted yet, or another one."""
        if self._epochs.put_back() is not None:
            return True
        try:
            return self.standing() in (Standing.OLDER, Standing.OTHER)
        except Damaged:
            return True

    def memory(self) -> Memory | None:
        """What the folder remembers; raises `Damaged`."""
        path = self._folder / _NAME
        try:
            with path.open("rb") as file:
                content = file.read(_LONGEST)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise Damaged(f"'{path}' cannot be read: {error.strerror}") from None
        try:
            found = json.loads(content)
            return Memory(*(str(found[key]) for key in ("folder", "database", "epoch", "mark")))
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Damaged(
                f"'{path}' is damaged. Remove it; if an older state of the database was put back, run "
                f"'{ACCEPT} --unnoticed' before the next start."
            ) from None

    def _compare(self) -> None:
        memory = self.memory()
        standing = judge(memory, self._epochs.marks(memory.folder if memory else None))
        if standing is Standing.OTHER and not self._epochs.is_empty():
            raise OlderDatabase(
                f"'{self._folder}' belongs to another database than that of [database] connection, or to a later state "
                f"of it. Correct the settings; if an older state was put back, run '{ACCEPT}'."
            )
        if memory is not None and standing is Standing.OLDER:
            self._hold(memory)
        elif memory is not None and standing is Standing.SAME:
            following = self._epochs.advance(memory)
            if following is not None:
                self._write(following)
        else:
            if standing is Standing.OTHER:
                LOG.warning("the database is a new one, and knows nothing of what was done with the last one")
            self._write(self._epochs.join(memory.folder if memory else str(uuid.uuid4())))

    def _hold(self, memory: Memory) -> None:
        settled = self._epochs.hold(f"{self._folder} on {socket.gethostname()}", memory)
        if settled is None:
            return
        LOG.error(
            "an older state of the database was put back: %s remembers a later one. Nothing is restored, rolled back, "
            "deleted or removed until somebody runs '%s'",
            *(self._folder, ACCEPT),
        )
        for operation_id in settled:
            LOG.error("task %s was open in the older state of the database and is settled as failed", operation_id)

    def _write(self, memory: Memory) -> None:
        """Durably, and as a whole or not at all."""
        draft = self._folder / f".{_NAME}.new"
        with open(draft, "wb", opener=private.opener) as file:  # a path's own takes no opener
            file.write(json.dumps(asdict(memory)).encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / _NAME)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether no other process has the folder's memory in hand; one that has does the same for us."""
        private.make_folder(self._folder)
        file = os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(file)
