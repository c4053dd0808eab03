"""Passwords of an htpasswd file: each pair is checked once for a while, few at a time, and as slowly for everybody.

bcrypt is slow on purpose, so what it has said is remembered: by a keyed hash, in bounded number, until the line of the
file changes or the time is over. A name that is not in the file costs as much as one that is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bcrypt

from stillframe.domain.errors import InvalidInput, Unauthorized, Unavailable

LOG = logging.getLogger(__name__)

_RIGHT_SECONDS: Final = 300.0
_WRONG_SECONDS: Final = 10.0
_REMEMBERED: Final = 1024
_AT_A_TIME: Final = 2
_WAITING: Final = 8
_KINDS: Final = (b"$2a$", b"$2b$", b"$2y$")
_USUAL_COST: Final = 12
_FILLING: Final = b"." * 31  # what bcrypt puts behind the 29 characters of kind, cost and salt

Check = Callable[[bytes, bytes], bool]
_Version = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class _File:
    """The user file as it was read: hashes by name, and one that nobody has the password of."""

    version: _Version
    hashes: Mapping[str, bytes]
    nobody: bytes


class _Memory:
    """What was found out about some pairs of name and password, the latest ones; not safe to use from threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._known: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def holds(self, digest: bytes, hashed: bytes, now: float) -> bool:
        """Whether it was found out with this very hash, and not too long ago."""
        found = self._known.get(digest)
        return found is not None and found[0] == hashed and now < found[1]

    def add(self, digest: bytes, hashed: bytes, now: float) -> None:
        self._known[digest] = (hashed, now + self._seconds)
        self._known.move_to_end(digest)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


class Passwords:
    """The users of a file and their passwords; safe to use from threads.

    `check` takes a password and its bcrypt hash. Raises `InvalidInput` for a file that cannot be used.
    """

    def __init__(
        self, user_file: Path, check: Check = bcrypt.checkpw, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = user_file
        self._check = check
        self._now = now
        self._key = secrets.token_bytes(32)
        self._guard = threading.Lock()
        self._right, self._wrong = _Memory(_RIGHT_SECONDS), _Memory(_WRONG_SECONDS)
        self._turns = threading.BoundedSemaphore(_AT_A_TIME)
        self._waiting = threading.BoundedSemaphore(_AT_A_TIME + _WAITING)
        try:
            self._file = _read(user_file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidInput(f"{user_file} cannot be used: {why}", "http_basic.user_file") from None

    def user(self, authorization: str | None) -> str:
        """The user that a header's credentials (RFC 7617) prove; raises `Unauthorized`, or `Unavailable`."""
        user, password = _pair(authorization)
        hashed, digest = self._hash(user), self._digest(user, password)
        known = self._remembered(digest, hashed)
        if known is None:
            known = self._checked(user, password, hashed, digest)
        if not known:
            raise Unauthorized("The credentials are not right.")
        return user

    def usable(self) -> bool:
        """Whether the user file can be used as it is now."""
        try:
            self._hash("")
        except Unavailable:
            return False
        return True

    def costly(self, authorization: str | None) -> bool:
        """Whether it would take a check to tell whose credentials these are."""
        try:
            user, password = _pair(authorization)
        except Unauthorized:
            return False
        # As the file was: whoever asks this must not wait for a disk.
        file = self._file
        return self._remembered(self._digest(user, password), file.hashes.get(user, file.nobody)) is None

    def _checked(self, user: str, password: bytes, hashed: bytes, digest: bytes) -> bool:
        if not self._waiting.acquire(blocking=False):
            raise Unavailable("Too many credentials are being checked; try again in a moment.")
        try:
            with self._turns:
                # Whoever came with the same pair may have had its turn meanwhile.
                known = self._remembered(digest, hashed)
                if known is not None:
                    return known
                right = self._matches(password, hashed) and user in self._file.hashes
        finally:
            self._waiting.release()
        with self._guard:
            (self._right if right else self._wrong).add(digest, hashed, self._now())
        if not right:
            LOG.info("wrong credentials of user %s", user)
        return right

    def _matches(self, password: bytes, hashed: bytes) -> bool:
        try:
            return self._check(password, hashed)
        except ValueError:
            # More than 72 bytes, or one of them NUL.
            return False

    def _remembered(self, digest: bytes, hashed: bytes) -> bool | None:
        now = self._now()
        with self._guard:
            if self._right.holds(digest, hashed, now):
                return True
            return False if self._wrong.holds(digest, hashed, now) else None

    def _hash(self, user: str) -> bytes:
        """The hash to check against; looked for in the file as it is now."""
        with self._guard:
            try:
                if _version(self._path.stat()) != self._file.version:
                    self._file = _read(self._path)
            except (OSError, ValueError) as error:
                LOG.error("%s cannot be used: %s", self._path, error)  # noqa: TRY400  # once for each request
                raise Unavailable("The credentials cannot be checked at present.") from None
            return self._file.hashes.get(user, self._file.nobody)

    def _digest(self, user: str, password: bytes) -> bytes:
        name = user.encode()
        return hashlib.blake2b(b"%d:%b%b" % (len(name), name, password), key=self._key).digest()


def _pair(authorization: str | None) -> tuple[str, bytes]:
    scheme, _, token = (authorization or "").strip().partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("another scheme")  # noqa: TRY301  # all of them end the same way
        user, colon, password = base64.b64decode(token.strip().encode("ascii"), validate=True).partition(b":")
        if not colon:
            raise ValueError("no password")  # noqa: TRY301  # as above
        return user.decode(), password
    except (ValueError, binascii.Error):
        raise Unauthorized("The request you have made requires authentication.") from None


def _read(path: Path) -> _File:
    """Raises `OSError`, or `ValueError` saying what is wrong with which line."""
    with path.open("rb") as file:
        version = _version(os.fstat(file.fileno()))
        lines = file.read().decode().splitlines()
    hashes: dict[str, bytes] = {}
    costs: set[int] = set()
    for number, line in enumerate(lines, start=1):
        user, colon, hashed = line.strip().partition(":")
        if not colon:
            continue
        crypted = hashed.encode()
        if not crypted.startswith(_KINDS) or not crypted[4:6].isdigit():
            raise ValueError(f"line {number} has no bcrypt hash; make it with: htpasswd -B")
        hashes.setdefault(user, crypted)
        costs.add(int(crypted[4:6]))
    return _File(version, hashes, bcrypt.gensalt(max(costs, default=_USUAL_COST)) + _FILLING)


def _version(found: os.stat_result) -> _Version:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
