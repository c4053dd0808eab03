"""A small process that lets servers run again that the service has paused, when it dies or takes too long.

It is started by path and imports nothing of this package but what bounds a reply. Over its standard input it is told
line by line what is armed, and what it needs for reaching Nova; each line is answered by one line. A server is looked
after once its time is over, and at the end of the input at once.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from contextlib import suppress
from itertools import dropwhile, takewhile
from pathlib import Path
from typing import Any

import requests

if __name__ == "__main__":
    # Isolated, Python looks nowhere for this package.
    sys.path.append(str(Path(__file__).resolve().parents[3]))

from stillframe.foreign.session import Bounded, bounded_session

# As long as a token is good for, by Keystone's default.
TIMEOUT = 3600.0
PAUSE = 0.3
LONGEST_PAUSE = 5.0
ANSWER = 10.0
# A pause that was asked for in the last moment of the service may still be on its way to Nova.
QUIET = 5.0
# A thousand of a server's actions, more than Nova shows at a time, are about 300 KB.
MOST_BYTES = 4 << 20
# Of what Nova notes, what lets a server run or keeps it from running.
TURNS = ("create", "start", "stop", "reboot", "rebuild", "pause", "unpause", "suspend", "resume")


class Watch:
    """One server that is armed: `url` of the server, `headers` with a token, `verify` and `cert` as requests takes
    them, `seconds` that it may stay paused, `user_id` of whoever pauses it, and the last request `after` which that is,
    or None where there was none. What others have paused stays so, whoever they are.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._woken = threading.Event()
        self._disarmed = threading.Event()
        self._unpaused = False
        # Not a daemon: the process ends when all have come to their end.
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def disarm(self) -> None:
        self._disarmed.set()
        self._woken.set()

    def act(self) -> None:
        self._woken.set()

    def _run(self) -> None:
        self._woken.wait(self._order["seconds"])
        end, pause, quiet_since = time.monotonic() + TIMEOUT, PAUSE, None
        while time.monotonic() < end and not self._disarmed.is_set():
            running = False
            # Whatever else than a server is told there says nothing about the server.
            with suppress(requests.RequestException, ValueError, LookupError, TypeError, AttributeError):
                running = self._let_run()
            quiet_since = (quiet_since or time.monotonic()) if running else None
            if quiet_since is not None and (self._unpaused or time.monotonic() - quiet_since > QUIET):
                return
            self._disarmed.wait(pause)
            pause = min(LONGEST_PAUSE, 1.1 * pause)

    def _let_run(self) -> bool:
        """Ask Nova to unpause the server where it is paused; whether there is nothing to do."""
        reply = self._ask("GET", "")
        if reply.status_code == requests.codes.not_found:
            return True
        reply.raise_for_status()
        server = reply.json()["server"]
        if server["OS-EXT-STS:task_state"] is not None:
            return False
        if server["status"] == "PAUSED":
            if not self._is_ours():
                return True
            self._unpaused = self._ask("POST", "/action", {"unpause": None}).ok
            return False
        return True

    def _is_ours(self) -> bool:
        """Whether the pause that stands is the first since the order, or repeats it: Nova notes it before it pauses."""
        reply = self._ask("GET", "/os-instance-actions")
        reply.raise_for_status()
        # The latest comes first.
        since = takewhile(lambda one: one["request_id"] != self._order["after"], reply.json()["instanceActions"])
        turns = [(one["action"], one["user_id"]) for one in since if one["action"] in TURNS][::-1]
        standing = list(dropwhile(lambda turn: turn[0] != "pause", turns))
        while standing and standing[-1][0] != "pause":
            # Whatever was asked for since has not come through.
            standing.pop()
        return bool(standing) and set(standing) == {("pause", self._order["user_id"])}

    def _ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        order = self._order
        with bounded_session(Bounded(most_bytes=MOST_BYTES)) as session:
            return session.request(
                method,
                order["url"] + path,
                json=body,
                headers=order["headers"],
                verify=order["verify"],
                cert=tuple(order["cert"]) if isinstance(order["cert"], list) else order["cert"],
                timeout=ANSWER,
            )


def serve() -> None:
    """Watch over what is armed until the input ends, then act on all of it at once."""
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
