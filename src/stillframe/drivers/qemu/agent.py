"""What the guest agent says, or does not say, becomes a value or an error of the tree.

Whoever is in the guest speaks as its agent. See `conversation` for the bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from stillframe.domain.errors import BackendError, Unavailable
from stillframe.drivers.qemu.conversation import Agent, NotAskedError, RefusalError, UnansweredError

# A guest that is busy or emulated takes its time.
_LOOK_SECONDS: Final = 10.0


class AgentRefused(BackendError):
    """The guest agent has answered that it does not do it."""


class AgentUnknown(BackendError):
    """The guest agent was asked and gave no answer that can be understood: what it has done is unknown."""


def freeze(path: Path, seconds: float) -> int:
    """Freeze the guest's file systems; how many. Raises `Unavailable` (not asked), `AgentRefused`, `AgentUnknown`."""
    with _translated("freeze the guest's file systems"), Agent(str(path), seconds) as agent:
        return agent.count("guest-fsfreeze-freeze")


def thaw(path: Path, seconds: float) -> tuple[bool | None, bool]:
    """Thaw them; whether they were frozen until then (None: nobody knows), and are since. Raises as `freeze` does."""
    with _translated("thaw the guest's file systems"), Agent(str(path), seconds, seconds) as agent:
        return agent.thaw()


def frozen(path: Path) -> bool:
    """Whether they are frozen, whoever asked for it. Raises as `freeze` does."""
    with _translated("say whether the guest's file systems are frozen"), Agent(str(path), _LOOK_SECONDS) as agent:
        return agent.frozen()


def shut_down(path: Path) -> None:
    """Ask for the guest's end, which has no answer; raises `Unavailable`, `AgentUnknown`."""
    with _translated("shut the guest down"), Agent(str(path), _LOOK_SECONDS) as agent:
        agent.tell("guest-shutdown")


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    try:
        yield
    except NotAskedError as problem:
        raise Unavailable(f"The guest agent does not answer, so that it was not asked to {doing}: {problem}.") from None
    except UnansweredError as problem:
        raise AgentUnknown(f"The guest agent was asked to {doing} and did not answer: {problem}.") from None
    except RefusalError as problem:
        raise AgentRefused(f"The guest agent refused to {doing}: {problem}.") from None
