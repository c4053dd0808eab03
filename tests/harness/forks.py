"""A process that has everything loaded and forks what a test needs, so that a fresh service costs no start-up.

It reads one JSON order a line and answers with one JSON line. What it forks are real processes with threads, files and
connections of their own; only their birth is cheaper. Nothing of Stillframe is used here: which release is played, the
server's program says.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

_ROOT: Final = Path(__file__).parents[2]
_LAST_SECONDS: Final = 90.0

Order = dict[str, Any]
Orders = Mapping[str, Callable[[Order], Any]]


class ForkServer:
    """A program that calls `serve`, as those who give it orders see it."""

    def __init__(self, program: str, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """`program` is a module, `options` are Python's."""
        self._process = subprocess.Popen(
            [sys.executable, *options, "-m", program],
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def order(self, do: str, **details: Any) -> Any:
        """Give an order and wait for the answer; an `AssertionError` tells what broke there instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert not isinstance(answer, dict) or "trouble" not in answer, answer["trouble"]
        return answer

    def close(self) -> None:
        """Let it end, which it does when nobody can give it orders any more."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(_LAST_SECONDS)


def serve(orders: Orders, warm_up: Callable[[], None]) -> None:
    """Be the server: carry orders out, one after another, until there are no more.

    `warm_up` loads everything once, before the first fork; it must leave no thread and no connection.
    """
    logging.disable(logging.CRITICAL)
    warm_up()
    # What is there now stays for good; looking through it would only make every child copy it.
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        try:
            answer = orders[order["do"]](order)
        except Exception:  # noqa: BLE001  # whatever it is, the test that gave the order tells it
            answer = {"trouble": traceback.format_exc()}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def fork(act: Callable[[], int | None]) -> int:
    """Do something in a process of its own, whose id is returned; its exit code is what `act` returns, or 1."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = act() or 0
    except BaseException:  # noqa: BLE001  # nothing of the parent's may be carried out by the child
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def ended_by(process: int) -> dict[str, int]:
    """Wait for the end of a process; the signal that it was killed by is told, if it was."""
    _pid, status = os.waitpid(process, 0)
    return {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {}


def apart(act: Callable[[Path, Order], dict[str, Any]]) -> Callable[[Order], dict[str, Any]]:
    """An order about a folder, `root`, that is carried out in a process of its own.

    The answer is what `act` returned before it ended, with the `signal` that ended it, or 0.
    """

    def carry_out(order: Order) -> dict[str, Any]:
        root = Path(order["root"])
        told = root / "answer.json"
        told.unlink(missing_ok=True)

        def tell() -> None:
            try:
                outcome = act(root, order)
            except Exception:  # noqa: BLE001  # whatever it is, the test that gave the order tells it
                outcome = {"trouble": traceback.format_exc()}
            told.write_text(json.dumps(outcome))

        ended = ended_by(fork(tell))
        return {"signal": 0, **ended, **(json.loads(told.read_text()) if told.exists() else {})}

    return carry_out
