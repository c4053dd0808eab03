"""Whether a local instance runs: its monitor knows, and failing that the locks on its disks do."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from stillframe.domain.errors import Refused, Unavailable
from stillframe.domain.instance import PowerState
from stillframe.drivers.image_files.error_translation import about
from stillframe.drivers.image_files.looking import any_written
from stillframe.drivers.qemu.commands import Qemu
from stillframe.drivers.qemu.declaration import Declaration

_STATES: Final = {
    "running": PowerState.ACTIVE,
    "guest-panicked": PowerState.ERROR,
    "internal-error": PowerState.ERROR,
    "io-error": PowerState.ERROR,
}


# QEMU has the guest and its disks in these states not, or not yet, or not for long (qapi/run-state.json): what is cut
# or restored then is not the disk of a machine that stands still.
_ON_THE_MOVE: Final = {
    "inmigrate": "waits for a guest that is migrated into it (-incoming)",
    "postmigrate": "has handed its guest over to another process (migrate), which has the disks now",
    "finish-migrate": "is handing its guest over to another process (migrate)",
    "colo": "runs in step with another process (COLO)",
    "restore-vm": "is loading an internal snapshot (loadvm)",
    "save-vm": "is taking an internal snapshot (savevm)",
}
#: What to tell of a guest that counts as paused though nobody has paused it.
NOT_PAUSED: Final = {
    "prelaunch": "has not begun to run: its QEMU was started with -S, or waits for the end of its preparation",
    "suspended": "is asleep (ACPI S3), and may wake up by itself",
    "shutdown": "has shut down, and its QEMU stays (-no-shutdown)",
    "watchdog": "was stopped by its watchdog device",
    "debug": "was stopped by a debugger",
    "guest-panicked": "has panicked",
    "internal-error": "was stopped by an error of QEMU",
    "io-error": "was stopped by an error of its disks",
}


def run_state(declaration: Declaration, qemu: Qemu) -> str | None:
    """What QEMU itself calls the present state; None where nobody tells. Raises `Refused` for a guest on the move."""
    found = None
    if declaration.qmp_socket is not None:
        with suppress(Unavailable):
            found = qemu.status(declaration.qmp_socket)
    if found in _ON_THE_MOVE:
        raise Refused(
            f"QEMU's process of '{declaration.name}' {_ON_THE_MOVE[found]} (run state {found}): wait for its end, and "
            "see that the instance is declared on the machine where it runs then."
        )
    return found


def power_state(declaration: Declaration, qemu: Qemu, seconds: float | None = None) -> PowerState:
    """The present state; a process that has the disks open counts as running even if its monitor is silent.

    `seconds`: how long its monitor is waited for, where that is less than for other calls.

    Raises `Unavailable` if the monitor is held by somebody else and the locks do not tell either, and `Refused` for a
    disk that cannot be looked at.
    """
    locked = False
    for disk in declaration.disks:
        with about(declaration.name, disk.name, disk.path):
            locked = locked or any_written([disk.file])
    if declaration.qmp_socket is not None:
        try:
            status = qemu.status(declaration.qmp_socket, seconds)
        except Unavailable:
            if not locked:
                raise
            return PowerState.ACTIVE
        if status is not None:
            # Everything else QEMU can be in, such as shut down but not ended, holds the guest still.
            return _STATES.get(status, PowerState.PAUSED)
    return PowerState.ACTIVE if locked else PowerState.SHUTOFF
