"""Our end of the watchdog: what is armed is let go within 2 seconds if this process dies."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from stillframe.drivers.lifeline import Lifeline

_PROGRAM: Final = Path(__file__).with_name("watchdog.py")


class Guard:
    """A lifeline to the watchdog of QEMU processes; safe to use from threads."""

    def __init__(self) -> None:
        # Isolated, without site packages: it has to start at once, and to work whatever happened to our environment.
        self._lifeline = Lifeline(_PROGRAM, "-I", "-S")

    def arm(self, instance_id: str, qmp: Path | None, agent: Path | None, mark: Path, token: str) -> None:
        """Have the instance let go if we die and the mark still has the token; in the place of an earlier order.

        `qmp`: where it is resumed; `agent`: where it is thawed. Returns when the watchdog knows, raises `Unavailable`
        if it does not.
        """
        order = {
            "qmp": str(qmp) if qmp else None,
            "agent": str(agent) if agent else None,
            "mark": str(mark),
            "token": token,
        }
        self._lifeline.arm(instance_id, order)

    def disarm(self, instance_id: str) -> None:
        """Have the instance left alone from now on."""
        self._lifeline.disarm(instance_id)

    def close(self) -> None:
        """End the watchdog; what is still armed is let go."""
        self._lifeline.close()

    @property
    def process_id(self) -> int | None:
        """The watchdog's process, or None before its first use."""
        return self._lifeline.process_id
