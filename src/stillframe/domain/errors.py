"""The one error tree; foreign errors are translated into it where they come in.

::

    StillframeError            internal-error      something of ours is wrong
    ├── InvalidInput           invalid-input       the request is malformed; `path` names the offending key
    ├── Refused                refused             well-formed, but the present state forbids it
    │   └── NotSupported       not-supported       this back end or volume cannot do it
    ├── Unauthorized           unauthorized        no or bad credentials
    ├── Forbidden              forbidden           role or policy
    ├── NotFound               not-found           not there, or not in the caller's project
    ├── Conflict               conflict            another operation runs, or a status changed underneath
    │   └── OlderDatabase      older-database      an older state of the database was put back, and not accepted yet
    ├── TooLarge               too-large           body or quota over its limit
    ├── Unavailable            unavailable         the platform behind is down; worth trying again
    ├── BackendError           backend-error       the platform behind refused or broke; trying again is no use
    │   ├── OutOfSpace         out-of-space        no room for the copies
    │   ├── Damaged            damaged             data are not what they were recorded to be
    │   └── GuestHeld          guest-held          nobody knows whether a guest is still held
    └── Interrupted            interrupted         the operation may not go on
        ├── DeadlineExceeded   deadline-exceeded   it ran past its deadline
        └── Superseded         superseded          it has been settled already, by its deadline or another worker
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Final

# What a platform says has no bound of its own, and a message is stored, logged and shown.
_LONGEST: Final = 4000


class StillframeError(Exception):
    """Root of the tree; `code` is stable and meant for programs, the message for people.

    Whatever the platform said, the message can be stored and shown anywhere: it has at most 4,000 characters, none of
    them a NUL or half a surrogate pair. `detail` is what the platform said that no user is told; it is for the log.
    """

    code: ClassVar[str] = "internal-error"
    detail: str = ""

    def __init__(self, message: str) -> None:
        self.message = _storable(message)
        super().__init__(self.message)

    def in_full(self) -> str:
        """The message with its detail, for the log."""
        return f"{self.message} ({self.detail})" if self.detail else self.message


class InvalidInput(StillframeError):
    """The request is malformed; `path` is the offending key, dotted from the body's root."""

    code = "invalid-input"

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class Refused(StillframeError):
    """The request is well-formed but the present state forbids it; nothing has been changed."""

    code = "refused"


class NotSupported(Refused):
    """This back end or volume has no such capability."""

    code = "not-supported"


class Unauthorized(StillframeError):
    """No or bad credentials."""

    code = "unauthorized"


class Forbidden(StillframeError):
    """The caller's roles do not allow it."""

    code = "forbidden"


class NotFound(StillframeError):
    """Not there, or not in the caller's project."""

    code = "not-found"


class Conflict(StillframeError):
    """Another operation runs on the instance, or a status changed between check and write."""

    code = "conflict"


class OlderDatabase(Conflict):
    """An older state of the service's own database was put back; what it says may not be true any more."""

    code = "older-database"


class TooLarge(StillframeError):
    """The body or a quota is over its limit."""

    code = "too-large"


class Unavailable(StillframeError):
    """The platform behind does not answer at present; the same call may succeed later."""

    code = "unavailable"


class BackendError(StillframeError):
    """The platform behind refused or broke; the same call would fail again."""

    code = "backend-error"


class OutOfSpace(BackendError):
    """There is no room for the copies."""

    code = "out-of-space"


class Damaged(BackendError):
    """Data are not what they were recorded to be."""

    code = "damaged"


class GuestHeld(BackendError):
    """A guest may still be frozen or paused: it was told to go on, and nobody has seen that it does."""

    code = "guest-held"


class Interrupted(StillframeError):
    """The operation may not go on."""

    code = "interrupted"


class DeadlineExceeded(Interrupted):
    """The operation ran past its deadline."""

    code = "deadline-exceeded"


class Superseded(Interrupted):
    """The operation has been settled already; whoever still works on it must change nothing."""

    code = "superseded"


def in_sentences(messages: Iterable[str]) -> str:
    """Several messages as one text; each ends as a sentence does, whoever wrote it."""
    return " ".join(text if text.endswith((".", "?", "!")) else f"{text}." for text in messages)


def _storable(message: str) -> str:
    text = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 4]} ..."
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")
