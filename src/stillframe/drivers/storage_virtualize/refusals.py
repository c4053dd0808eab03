"""Where refusals of an array become errors of the tree: by the code that begins each of its messages."""

from __future__ import annotations

import re
from typing import Final

from stillframe.domain.errors import (
    BackendError,
    Conflict,
    NotFound,
    NotSupported,
    OutOfSpace,
    Refused,
    StillframeError,
    Unavailable,
)

_CODE: Final = re.compile(r"CMMVC\d{4,5}[EW]")

# From IBM's list of messages; a code that is not here is a plain refusal.
_KINDS: Final[dict[str, type[StillframeError]]] = {
    # Something named in the command does not exist.
    "CMMVC5753E": NotFound,
    "CMMVC5754E": NotFound,
    "CMMVC5804E": NotFound,
    "CMMVC8957E": NotFound,
    "CMMVC9755E": NotFound,
    # A name is taken, or the mapping is there.
    "CMMVC6035E": Conflict,
    "CMMVC6466E": Conflict,
    # No free extents in the pool, to grow in and to create in.
    "CMMVC5860E": OutOfSpace,
    "CMMVC8710E": OutOfSpace,
    # The system is not in a stable state, or the volume is being formatted.
    "CMMVC5786E": Unavailable,
    "CMMVC8587E": Unavailable,
    # Unknown parameter or command, and what the code level or a licence does not give.
    "CMMVC5709E": NotSupported,
    "CMMVC7205E": NotSupported,
    # Different sizes; in another state; in use.
    "CMMVC5924E": Refused,
    "CMMVC5840E": Refused,
}


def refusal(where: str, text: str) -> StillframeError:
    """The error for what an array answered; its code and text stay readable in the message.

    `where` names the array and the command.
    """
    code = _CODE.search(text)
    kind = _KINDS.get(code[0], BackendError) if code else BackendError
    return kind(f"{where}: {text.strip() or 'refused without a reason'}")
