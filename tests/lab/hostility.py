"""What a guest that means no good says in the place of its agent, or of its monitor."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from tests.lab.speakers import agent_saying, saying

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from tests.lab.speakers import Part

WORDS: Final[Mapping[str, bytes]] = {
    "nested too deep": b"[" * 100_000 + b"\n",
    "nested too deep below a name": b'{"return": ' * 50_000 + b"\n",
    "an object for a number": b'{"return": {"a": 1}}\n',
    "a word for a number": b'{"return": "many"}\n',
    "an endless number": b'{"return": 1e999}\n',
    "not a number": b'{"return": NaN}\n',
    "minus infinity": b'{"return": -Infinity}\n',
    "a number of many digits": b'{"return": ' + b"9" * 60_000 + b"}\n",
    "a number below zero": b'{"return": -1}\n',
    "a huge number": b'{"return": 99999999999999999999}\n',
    "truth": b'{"return": true}\n',
    "nothing": b'{"return": null}\n',
    "a list of itself": b"[[]]\n",
    "an error of another form": b'{"error": [1, {"desc": 3}]}\n',
    "an error with an escape": b'{"error": {"class": "x", "desc": "\\u001b[2J\\n2026 forged"}}\n',
    "an error without end": b'{"error": {"class": "x", "desc": "' + b"x" * 60_000 + b'"}}\n',
    "no JSON": b"\x00\xfe\xff{]\n",
    "an empty line": b"\n",
    "half a line": b'{"return": 1',
}


def drip(connection: socket.socket) -> None:
    """One byte after the other, each in time."""
    while True:
        connection.sendall(b"{")
        time.sleep(0.05)


#: Behaviours that end by themselves or are broken off by whoever listens for their size.
SPEAKERS: Final[Mapping[str, Part]] = {
    **{name: agent_saying(words) for name, words in WORDS.items()},
    "the same before it was asked": saying(*WORDS.values(), hold=False),
    "messages without end": saying(endless=b"{}\n" * 1000),
    "a line without end": saying(endless=b"x" * 65536),
    "an answer without end": agent_saying(b'{"return": "' + b"x" * (3 << 20)),
    "hangs up": saying(),
}
#: Behaviours that last as long as somebody listens.
SLOW: Final[Mapping[str, Part]] = {"silent": saying(hold=True), "drips": drip}
