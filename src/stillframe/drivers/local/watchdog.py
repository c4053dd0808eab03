"""A small process that lets guests run again when the service that paused them dies.

It is started by path and imports only the standard library and what stands on that alone. Over its standard input it
is told line by line what is armed; each line is answered by one line. At its end it lets all that is armed go.
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

from stillframe.drivers.local.conversation import Agent, Monitor, RefusalError

# A guest agent may be at a freeze for long, and the thaw counts for nothing until it has answered it.
PATIENCE = 3600.0
PAUSE = 0.05
LONGEST_PAUSE = 5.0
ANSWER = 10.0


def resume(path: str) -> bool:
    """Let the guest's processors run; whether they do."""
    with Monitor(path, ANSWER) as monitor:
        return not monitor.resume()


def thaw(path: str) -> bool:
    """Let the guest's file systems go on; whether they do."""
    with Agent(path, ANSWER, ANSWER) as agent:
        _before, frozen = agent.thaw()
        return not frozen


def rescue(armed: dict[str, Any]) -> None:
    """Resume and thaw one instance, again and again until both are certain, or somebody else has seen to it."""
    end, pause = time.monotonic() + PATIENCE, PAUSE
    left = [(step, armed[name]) for step, name in ((resume, "qmp"), (thaw, "agent")) if armed.get(name)]
    while left and time.monotonic() < end and _stands(armed):
        for step, path in tuple(left):
            with suppress(OSError, RefusalError):
                if step(path):
                    left.remove((step, path))
        if left:
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 1.2 * pause)
    if not left and _stands(armed):
        with suppress(OSError):
            Path(armed["mark"]).unlink()


def _stands(armed: dict[str, Any]) -> bool:
    """Whether the mark is still the one of what is armed: nobody has let the guest go since, or holds it anew."""
    try:
        return bool(json.loads(Path(armed["mark"]).read_bytes())["token"] == armed["token"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def serve() -> None:
    """Keep the list of what is armed until the input ends, then rescue everything on it at once."""
    armed: dict[str, dict[str, Any]] = {}
    for line in sys.stdin.buffer:
        order = json.loads(line)
        if "arm" in order:
            armed[order["arm"]] = order
        else:
            armed.pop(order["disarm"], None)
        with suppress(OSError):
            sys.stdout.buffer.write(b"ok\n")
            sys.stdout.buffer.flush()
    workers = [threading.Thread(target=rescue, args=(order,)) for order in armed.values()]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


if __name__ == "__main__":
    # Whoever ends the service on purpose ends its input too; nothing else may end this process before the rescue.
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    serve()
