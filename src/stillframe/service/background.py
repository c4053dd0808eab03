"""What goes on in the background: a thread that is told to stop, and waited for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from stillframe.domain.errors import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable


class Background:
    """At most one thread, which ends soon after `stop`; it does not keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def stop(self) -> None:
        """Begin nothing more; what is under way is broken off at its next step, or comes to its end."""
        self._stopping.set()

    def ended(self, seconds: float) -> bool:
        """Whether nothing of it runs any more, waited for so long."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _begin(self, work: Callable[..., None], *args: Any) -> None:
        self._thread = threading.Thread(target=work, args=args, name=self._name, daemon=True)
        self._thread.start()

    def _check(self) -> None:
        """Raises `Interrupted` after `stop`."""
        if self._stopping.is_set():
            raise Interrupted("the service is ending")
