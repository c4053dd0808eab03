"""A small process that lets guests run again when the service that paused them dies, or takes too long.

It is started by path and imports only the standard library and what stands on that alone. Over its standard input it
is told line by line what is armed; each line is answered by one line. What has been armed for too long it lets go,
again and again, and at the end of its input all that is armed.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Isolated, Python looks nowhere for this package.
    sys.path.append(str(Path(__file__).resolve().parents[3]))

from stillframe.drivers.qemu.conversation import Agent, Monitor, RefusalError, has_asked
from stillframe.drivers.qemu.processes import is_another, is_gone

# A guest agent may be at a freeze for long, and the thaw counts for nothing until it has answered it.
TIMEOUT = 3600.0
PAUSE = 0.05
LONGEST_PAUSE = 5.0
ANSWER = 10.0


def resume(path: str, armed: dict[str, Any]) -> bool:
    """Let the guest's processors run; whether they do, belong to another process, or have run since the pause."""
    if armed.get("requests") is not None and _has_run_since(path, armed["requests"]):
        # No pause of ours comes after the one that is known of: what stands now is somebody else's.
        return True
    with Monitor(path, ANSWER) as monitor:
        return is_another(monitor.process, armed.get("process")) or not monitor.resume()


def _has_run_since(path: str, requests: dict[str, list[int]]) -> bool:
    """Whether a guest has asked for more since; not, where nobody can tell: it must not stay paused."""
    with suppress(OSError, RefusalError), Monitor(path, ANSWER) as monitor:
        return has_asked(requests, monitor.requests())
    return False


def thaw(path: str, _armed: dict[str, Any]) -> bool:
    """Let the guest's file systems go on; whether they do."""
    with Agent(path, ANSWER, ANSWER) as agent:
        _before, frozen = agent.thaw()
        return not frozen


class Watch:
    """One instance that is armed; see `guard.Order`."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._woken = threading.Event()
        self._disarmed = False
        # Not a daemon: the process ends when all have come to their end.
        threading.Thread(target=self._run).start()

    def disarm(self) -> None:
        self._disarmed = True
        self._woken.set()

    def act(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        until = self._order["until"]
        while not self._woken.wait(max(0.0, until - time.monotonic())):
            # Whoever holds it lives, and may be stopped in the middle: the mark stays, for a pause may come yet.
            release(self._order, self._woken)
            until = time.monotonic() + self._order["seconds"]
        if not self._disarmed:
            rescue(self._order)


def rescue(armed: dict[str, Any]) -> None:
    """Let one instance go, and take the mark away once that is certain, and nobody else may hold it yet."""
    if release(armed, threading.Event()) and armed["alone"] and _stands(armed):
        with suppress(OSError):
            Path(armed["mark"]).unlink()


def release(armed: dict[str, Any], enough: threading.Event) -> bool:
    """Resume and thaw one instance, again and again until both are certain; whether they are.

    It ends before that when somebody else has seen to the instance, or when it is `enough`.
    """
    end, pause, process = time.monotonic() + TIMEOUT, PAUSE, armed.get("process")
    left = [(step, armed[name]) for step, name in ((resume, "qmp"), (thaw, "agent")) if armed.get(name)]
    while left and time.monotonic() < end and _stands(armed) and not enough.is_set():
        if is_gone(process):
            return True
        for step, path in tuple(left):
            with suppress(OSError, RefusalError):
                if step(path, armed):
                    left.remove((step, path))
        if left:
            enough.wait(pause)
            pause = min(LONGEST_PAUSE, 1.2 * pause)
    return not left


def _stands(armed: dict[str, Any]) -> bool:
    """Whether the mark is still the one of what is armed: nobody has let the guest go since, or holds it anew."""
    try:
        return bool(json.loads(Path(armed["mark"]).read_bytes())["token"] == armed["token"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def serve() -> None:
    """Watch over what is armed until the input ends, then let all of it go at once."""
    armed: dict[str, Watch] = {}
    for line in sys.stdin.buffer:
        order = json.loads(line)
        earlier = armed.pop(order.get("arm") or order["disarm"], None)
        if earlier is not None:
            earlier.disarm()
        if "arm" in order:
            armed[order["arm"]] = Watch(order)
        with suppress(OSError):
            sys.stdout.buffer.write(b"ok\n")
            sys.stdout.buffer.flush()
    for watch in armed.values():
        watch.act()


if __name__ == "__main__":
    # Whoever ends the service on purpose ends its input too; nothing else may end this process before the rescue.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    serve()
