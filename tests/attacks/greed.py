"""Clients that take what they can: many connections, each of which says little, slowly, or listens to nothing."""

from __future__ import annotations

import resource
import socket
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How long a good client may have to wait, in seconds, whatever the others do; on an idle machine it is milliseconds,
#: and a service that is held up answers after minutes or never.
PROMPT: Final = 20.0

_PAUSE: Final = 0.05


def allow_many_files() -> None:
    """Both ends of all connections may be in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(hard, 16384)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connected(url: str, seconds: float = 30.0) -> socket.socket:
    address = urlsplit(url)
    assert address.hostname == "127.0.0.1"
    return socket.create_connection((address.hostname, address.port or 80), timeout=seconds)


@contextmanager
def greedy(url: str, count: int, opening: bytes, drip: Callable[[int], bytes]) -> Iterator[list[int]]:
    """`count` connections while the block runs, each of which sends `opening` and then `drip` again and again.

    One that is closed is made anew, as an attacker would. Yields a list with the number of connections made so far.
    """
    allow_many_files()
    made, ending = [0], threading.Event()

    def opened() -> socket.socket:
        made[0] += 1
        one = connected(url)
        one.setblocking(False)
        one.send(opening)
        return one

    def attack() -> None:
        with ExitStack() as stack:
            crowd = [stack.enter_context(opened()) for _ in range(count)]
            ready.set()
            turn = 0
            while not ending.is_set():
                turn += 1
                for number, one in enumerate(crowd):
                    try:
                        one.send(drip(turn))
                    except BlockingIOError:
                        continue
                    except OSError:
                        one.close()
                        crowd[number] = stack.enter_context(opened())
                ending.wait(_PAUSE)

    ready = threading.Event()
    thread = threading.Thread(target=attack, daemon=True)
    thread.start()
    assert ready.wait(60), f"only {made[0]} connections were made"
    try:
        yield made
    finally:
        ending.set()
        thread.join(30)


def slowest_answer(url: str, times: int = 15) -> float:
    """The longest that a good client waits for an answer; each time over a connection of its own."""
    slowest = 0.0
    for _ in range(times):
        started = time.monotonic()
        reply = requests.get(url, timeout=60, headers={"Connection": "close"})
        slowest = max(slowest, time.monotonic() - started)
        assert reply.status_code == 200, reply.text
    return slowest
