"""Putting a disk back: the copy's content becomes a new file, which takes the disk's place at one instant.

The new file belongs to one attempt. It has no name until it is complete, or one that holds the attempt; whoever works
for the same volume after that attempt removes what has a name. So an attempt that was suspended and comes back either
finds that it may not go on, or that what it would put in the disk's place is gone.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

from stillframe.drivers.call import Call
from stillframe.drivers.files.disks import Disk
from stillframe.drivers.files.records import Copy, Method
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.alone import Alone, alone
from stillframe.drivers.image_files.error_translation import translated
from stillframe.drivers.image_files.files import Draft, Files, names_in

#: How the name of such a draft ends; before it come the volume's id and the attempt.
RESTORING: Final = ".restoring"


class Replacer:
    """Replaces disks by copies of their copies."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def clear(self, copy: Copy) -> None:
        """Remove the drafts that earlier attempts for the copy's volume left, or hold and may not use any more."""
        with translated("removing what an earlier restore left"):
            for name in names_in(Path(copy.root)):
                if name.startswith(f"{copy.name.volume_id}.") and name.endswith(RESTORING):
                    self._files.remove_beside(Path(copy.root) / name)

    def replace(self, call: Call, disk: Disk, copy: Copy) -> None:
        """Put the copy's content in the disk's place; raises `Refused` if somebody else has the disk open."""
        with translated("restoring the disk"), opening.file(disk.path) as live, alone(live) as guard:
            with opening.file(copy.data, links=False) as data:
                if (data.found.st_dev, data.found.st_ino) != (live.found.st_dev, live.found.st_ino):
                    draft = self._draft(call, live, data, copy, guard)
                    try:
                        self._take_place(call, draft, live.path, guard)
                    finally:
                        draft.close()
            self._files.sync_shared(live.folder.path)

    def _draft(self, call: Call, live: opening.File, data: opening.File, copy: Copy, guard: Alone) -> Draft:
        name = f"{copy.name.volume_id}.{secrets.token_hex(4)}{RESTORING}"
        if copy.method is Method.LINK:
            return self._files.second_name(data.fd, Path(copy.root), name)
        clone = self._files.can_clone(live.folder.path)
        draft = self._files.draft(Path(copy.root), name, live.fd)

        def tick(done: int, total: int) -> None:
            call.check()
            guard.check()
            call.report(done, total)

        try:
            if clone:
                self._files.clone(data.fd, draft)
            else:
                self._files.copy(data.fd, draft, tick)
            self._files.take_after(live.fd, draft)
            self._files.sync_draft(draft)
        except BaseException:
            draft.close()
            raise
        return draft

    def _take_place(self, call: Call, draft: Draft, live: Path, guard: Alone) -> None:
        self._files.show(draft)
        # Asked while the draft has a name: who was suspended after this, until another worker had taken over, finds
        # the name removed.
        call.check()
        guard.finish()
        with call.touching():
            self._files.replace(draft, live)
