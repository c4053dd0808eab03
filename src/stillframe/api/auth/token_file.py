"""The file of a service's token: made at its first start, and of use only while nobody but its owner can have read it.

Nothing here needs the rest of the service, for the command line looks for the token too.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shlex
import stat
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from stillframe.domain.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FOLDER: Final = "auth"
_FILE: Final = "token"
_RANDOM_BYTES: Final = 32
_LONGEST: Final = 512
# Visible ASCII, which every header can carry; 43 characters of base64 are 256 bits.
_TOKEN: Final = re.compile(rb"([!-~]{43,})\n?")
_OF_OTHERS: Final = 0o077


@dataclass(frozen=True, slots=True)
class Kept:
    """A token as it was found; `owner` is the uid that it belongs to."""

    token: str = field(repr=False)
    owner: int


class Foreign(InvalidInput):
    """The token, or what it lies in, is another user's: its owner can use it, and nobody else."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"The token of the service cannot be read: {path} belongs to {owner}")
        self.owner = owner


def path_of(state_dir: Path) -> Path:
    """Where the token of the service with this state folder is."""
    return state_dir / _FOLDER / _FILE


def find(state_dir: Path) -> Kept | None:
    """The token, if there is one.

    Raises `InvalidInput` for a file or folder that others may have read or written, with the command that mends it.
    """
    try:
        with _opened_folder(state_dir) as folder:
            return _read(folder, path_of(state_dir))
    except FileNotFoundError:
        return None


def ensure(state_dir: Path) -> str:
    """The token of a service that starts; made if there is none.

    Raises `InvalidInput` as `find` does, and `OSError` where it cannot be kept.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        (state_dir / _FOLDER).mkdir(mode=0o700)
    path, user = path_of(state_dir), os.geteuid()
    try:
        with _opened_folder(state_dir) as folder:
            _require_owner(folder, path.parent, user)
            if not _is_there(folder):
                _make(folder)
            return _read(folder, path).token
    except Foreign as error:
        why = f"belongs to {error.owner}, and the service runs as {_name(user)}"
        raise _unusable(path.parent, why) from None


def _require_owner(folder: int, path: Path, user: int) -> None:
    owner = os.fstat(folder).st_uid
    if owner != user:
        raise Foreign(path, _name(owner))


def _is_there(folder: int) -> bool:
    try:
        os.stat(_FILE, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _make(folder: int) -> None:
    """Whoever is first makes it: it appears whole or not at all, and never in the place of another one."""
    draft = f".{_FILE}.{secrets.token_hex(8)}"
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        try:
            os.write(file, f"{secrets.token_urlsafe(_RANDOM_BYTES)}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        with suppress(FileExistsError):
            os.link(draft, _FILE, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.unlink(draft, dir_fd=folder)
    os.fsync(folder)


@contextmanager
def _opened_folder(state_dir: Path) -> Iterator[int]:
    path = path_of(state_dir).parent
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except PermissionError:
        raise _foreign(path) from None
    except NotADirectoryError:
        # A symbolic link is no folder either, where it is not followed.
        raise _unusable(path, "is no folder") from None
    try:
        found = os.fstat(folder)
        if os.geteuid() not in (found.st_uid, 0):
            raise _foreign(path)
        if found.st_mode & _OF_OTHERS:
            raise _unusable(path, "is open to other users", f"chmod 700 {shlex.quote(str(path))}")
        yield folder
    finally:
        os.close(folder)


def _read(folder: int, path: Path) -> Kept:
    """Raises `FileNotFoundError` if there is none."""
    try:
        # Opening a pipe would wait for its other end.
        file = os.open(_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:
        raise _foreign(path) from None
    except FileNotFoundError:
        raise
    except OSError:
        raise _unusable(path, "is no regular file") from None
    try:
        found = os.fstat(file)
        if not stat.S_ISREG(found.st_mode):
            raise _unusable(path, "is no regular file")
        if found.st_uid != os.fstat(folder).st_uid:
            raise _unusable(path, f"belongs to {_name(found.st_uid)}, unlike its folder")
        if found.st_mode & _OF_OTHERS:
            raise _unusable(path, "could be read by other users")
        content = _TOKEN.fullmatch(os.read(file, _LONGEST))
    finally:
        os.close(file)
    if content is None:
        raise _unusable(path, "holds no token, which is one line of 43 visible characters or more")
    return Kept(content.group(1).decode(), found.st_uid)


def _unusable(path: Path, why: str, command: str | None = None) -> InvalidInput:
    """With a command that, as it removes the token, makes the next start bring a new one about."""
    mend = command or f"rm -r {shlex.quote(str(path))}"
    return InvalidInput(f"The token of the service cannot be used: {path} {why}. Mend it and start again: {mend}")


def _foreign(path: Path) -> Foreign:
    for place in (path, *path.parents):
        with suppress(OSError):
            return Foreign(path, _name(place.stat().st_uid))
    return Foreign(path, "another user")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"
