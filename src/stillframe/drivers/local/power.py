"""Whether a local instance runs: its monitor knows, and failing that the locks on its disks do."""

from __future__ import annotations

from typing import Final

from stillframe.domain.errors import Unavailable
from stillframe.domain.instance import PowerState
from stillframe.drivers.local.checks import about
from stillframe.drivers.local.declaration import Declaration
from stillframe.drivers.local.images import Images, any_written
from stillframe.drivers.local.qemu import Qemu

_STATES: Final = {
    "running": PowerState.ACTIVE,
    "guest-panicked": PowerState.ERROR,
    "internal-error": PowerState.ERROR,
    "io-error": PowerState.ERROR,
}


def power_state(declaration: Declaration, images: Images, qemu: Qemu, seconds: float | None = None) -> PowerState:
    """The present state; a process that has the disks open counts as running even if its monitor is silent.

    `seconds`: how long its monitor is waited for, where that is less than for other calls.

    Raises `Unavailable` if the monitor is held by somebody else and the locks do not tell either, and `Refused` for a
    disk that cannot be looked at.
    """
    locked = False
    for disk in declaration.disks:
        with about(declaration, disk):
            locked = locked or any_written(images, [disk.file])
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
