"""Our end of the watchdog: what is armed is let go within 2 seconds if this process dies, and when its time is over."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from stillframe.drivers.qemu.commands import Requests
from stillframe.drivers.watchdog_client import WatchdogClient

_PROGRAM: Final = Path(__file__).with_name("watchdog.py")


@dataclass(frozen=True, slots=True)
class Order:
    """What the watchdog needs: `qmp`, where the instance is resumed, `agent`, where it is thawed.

    Nothing is done once the `mark` has another `token`, or the QEMU `process` has ended (see `processes`). It is done
    at our death, or at the moment `until` of the monotonic clock, and then each `seconds` as long as the order stands.
    Where we were not `alone`, the mark stays, for another one may hold the instance yet. `requests`: what the guest had
    asked of its disks when it was paused, once that is known; a guest that has asked for more since is not resumed, for
    whoever has stopped it again is somebody else.
    """

    qmp: Path | None
    agent: Path | None
    mark: Path
    token: str
    process: str | None
    until: float
    seconds: float
    alone: bool = True
    requests: Requests | None = None


class Guard:
    """The watchdog of QEMU processes; safe to use from threads."""

    def __init__(self) -> None:
        # Isolated, without site packages: it has to start at once, and to work whatever happened to our environment.
        self._watchdog = WatchdogClient(_PROGRAM, "-I", "-S")

    def arm(self, order: Order) -> None:
        """Have the instance let go if we die or take too long; in the place of an earlier order of the same token.

        Returns when the watchdog knows, raises `Unavailable` if it does not.
        """
        qmp, agent = (str(path) if path else None for path in (order.qmp, order.agent))
        self._watchdog.arm(order.token, {**asdict(order), "qmp": qmp, "agent": agent, "mark": str(order.mark)})

    def disarm(self, token: str) -> None:
        """Have the instance left alone from now on."""
        self._watchdog.disarm(token)

    def close(self) -> None:
        """End the watchdog; what is still armed is let go."""
        self._watchdog.close()

    @property
    def process_id(self) -> int | None:
        """The watchdog's process, or None before its first use."""
        return self._watchdog.process_id
