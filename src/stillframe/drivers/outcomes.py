"""What follows from an outcome that nobody knows: whose a guest's stillness is, and when it is over.

Every platform decides by these two functions, whatever it holds a guest still by: a freeze, a pause, or both.
"""

from __future__ import annotations

from enum import StrEnum


class Seen(StrEnum):
    """What somebody saw who looked: the guest was free, or it was held still, or there was no telling."""

    FREE = "free"
    HELD = "held"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What became of a request: done, refused by whoever was asked, or it may have happened or happen yet."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"


def is_ours(before: Seen, asked: Outcome) -> bool:
    """Whether we hold a guest still, or may, so that it is ours to let go.

    What was held before we asked is somebody else's, and what we were refused we did not do: to end that would break
    another tool's work. Everything else may be ours, and a guest must not stay still because nobody is sure.
    """
    return before is not Seen.HELD and asked is not Outcome.REFUSED


def is_over(released: Outcome, after: Seen) -> bool:
    """Whether it is certain that we hold a guest still no more.

    A freeze or pause of unknown outcome may come after a look that saw the guest free, but not after the answer to a
    release that was asked for later; and an answer alone says what was meant, not what is.
    """
    return released is Outcome.DONE and after is Seen.FREE
