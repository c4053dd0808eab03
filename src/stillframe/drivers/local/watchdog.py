"""A small process that lets guests run again when the service that paused them dies.

It is started by path, imports only the standard library and nothing of this package, and is told line by line over its
standard input what is armed; each line is answered by one line. At the end of its input it resumes all that is armed.
"""

from __future__ import annotations

import json
import secrets
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# Longer than any guest can be expected to be deaf, short enough not to surprise somebody who paused it by hand later.
PATIENCE = 60.0
PAUSE = 0.05
ANSWER = 5.0


def resume(path: str) -> None:
    """Connect to QEMU's monitor and let the guest's processors run."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
        monitor.settimeout(ANSWER)
        monitor.connect(path)
        with monitor.makefile("rwb") as stream:
            stream.readline()
            for command in ("qmp_capabilities", "cont"):
                stream.write(json.dumps({"execute": command}).encode() + b"\n")
                stream.flush()
                while "return" not in (reply := _object(stream.readline())):
                    if "error" in reply:
                        raise ConnectionError(reply["error"])


def thaw(path: str) -> None:
    """Connect to the guest agent and let the guest's file systems go on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.settimeout(ANSWER)
        agent.connect(path)
        with agent.makefile("rwb") as stream:
            token = secrets.randbits(31)
            # It resets the agent's parser, and is answered as an error, which the synchronisation skips.
            stream.write(b"\xff")
            _send(stream, {"execute": "guest-sync-delimited", "arguments": {"id": token}})
            while _object(stream.readline()).get("return") != token:
                pass
            _send(stream, {"execute": "guest-fsfreeze-thaw"})
            reply = _object(stream.readline())
            if "error" in reply:
                raise ConnectionError(reply["error"])


def _send(stream: Any, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _object(line: bytes) -> dict[str, Any]:
    if not line:
        raise ConnectionError("closed")
    with suppress(ValueError):
        found = json.loads(line.lstrip(b"\xff"))
        if isinstance(found, dict):
            return found
    return {}


def rescue(armed: dict[str, Any]) -> None:
    """Resume and thaw one instance, trying again until it works or the patience is at its end."""
    end = time.monotonic() + PATIENCE
    left = [(resume, armed["qmp"])] + ([(thaw, armed["agent"])] if armed.get("agent") else [])
    while left and time.monotonic() < end:
        step, path = left[0]
        try:
            step(path)
        except OSError:
            time.sleep(PAUSE)
            continue
        left.pop(0)
        if step is resume and armed.get("marker"):
            with suppress(OSError):
                Path(armed["marker"]).unlink()


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
