"""The files below an image, walked one by one, as QEMU reads their names; only local files, and nothing else is opened.

A name is plain, with `file:` before it, or `json:` with the drivers qcow2 or raw over file. A relative one counts from
the folder of the image that it is stored in. (QEMU counts `file:` and `json:` names from its working folder instead: an
image with such a name works only for a QEMU that was started beside it.)
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stillframe.domain.errors import NotSupported, Refused
from stillframe.drivers.files import headers
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.formats import Format
from stillframe.drivers.image_files.opening import File

DEEPEST: Final = 64
_BROKEN: Final = "The backing chain is broken, mend it first:"
# Everything up to the first colon, if no slash comes before it (path_has_protocol in QEMU's block.c).
_PROTOCOL: Final = re.compile(r"([^:/]*):")
_PLAIN_PROTOCOL: Final = re.compile(r"[a-z][a-z0-9+._-]{0,19}")
# What may be said of a file besides its name without changing what is read from it.
_HARMLESS: Final = frozenset({"aio", "auto-read-only", "cache", "detect-zeroes", "discard", "locking", "read-only"})


@dataclass(frozen=True, slots=True)
class Layer:
    """One open file below an image, the name that leads to it, and its format."""

    file: File
    named: Path
    format: Format


@dataclass(frozen=True, slots=True)
class Name:
    """Where a backing name leads, and the format that it says itself, if it does."""

    path: Path
    format: str | None


@contextmanager
def walked(
    top: File, home: Path, trusted: frozenset[int] | None, describe: Callable[[File], str | None]
) -> Iterator[tuple[Layer, ...]]:
    """All files below a qcow2 image, nearest first, open; `home` is where its relative backing name counts from.

    `describe` says which format the image states for the file below it. Raises `Refused`, `NotSupported`.
    """
    with ExitStack() as stack:
        layers: list[Layer] = []
        seen = {(top.found.st_dev, top.found.st_ino)}
        above: File | None = top
        while above is not None and (stored := headers.read(above.fd).backing) is not None:
            if len(layers) == DEEPEST:
                raise Refused(f"More than {DEEPEST} images lie below one another; merge some: qemu-img rebase")
            name = understood(stored, home)
            below = _opened(stack, name.path, trusted)
            inode = below.found.st_dev, below.found.st_ino
            if inode in seen:
                raise Refused(
                    "An image has itself below it, and QEMU cannot open such a chain; give it another backing file."
                )
            seen.add(inode)
            layers.append(Layer(below, name.path, _format(describe(above), name.format, below)))
            above, home = (below if layers[-1].format is Format.QCOW2 else None), name.path.parent
            if above is not None:
                headers.require_plain(headers.read(above.fd))
        yield tuple(layers)


def understood(stored: str, home: Path) -> Name:
    """Where a stored backing name leads; raises `NotSupported` for what is no plain local file."""
    if stored.startswith("json:"):
        return _from_json(stored.removeprefix("json:"), home)
    protocol = _PROTOCOL.match(stored)
    if protocol is None:
        return Name(home / stored, None)
    if protocol[1] == "file":
        return Name(home / stored.removeprefix("file:"), None)
    told = f" but by '{protocol[1]}'" if _PLAIN_PROTOCOL.fullmatch(protocol[1]) else ""
    raise NotSupported(f"The image below it is not reached as a local file{told}; only local files can be relied on.")


def _from_json(text: str, home: Path) -> Name:
    try:
        options = dict(_flat("", json.loads(text)))
    except (ValueError, RecursionError):
        raise NotSupported("The json: name of the image below it leads to no local file; it is no JSON.") from None
    name, driver = options.pop("file.filename", None), options.pop("driver", None)
    plain = options.pop("file.driver", "file") == "file" and driver in tuple(Format)
    strange = {key for key in options if key.removeprefix("file.").partition(".")[0] not in _HARMLESS}
    if not plain or strange or not isinstance(name, str) or not name or "\0" in name:
        raise NotSupported(
            "The json: name of the image below it says something else than the drivers qcow2 or raw over file; only "
            "local files can be relied on."
        )
    return Name(home / name, str(driver))


def _flat(prefix: str, value: object) -> Iterator[tuple[str, object]]:
    """QEMU takes nested options and dotted keys alike."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{prefix}.{key}" if prefix else str(key), inner)
    else:
        yield prefix, value


def _opened(stack: ExitStack, path: Path, trusted: frozenset[int] | None) -> File:
    try:
        return stack.enter_context(opening.file(path, os.O_RDONLY, trusted))
    except OSError as problem:
        why = os.strerror(problem.errno or errno.EIO)
        raise Refused(f"{_BROKEN} an image below it cannot be opened: {why}.") from None
    except ValueError:
        raise Refused(f"{_BROKEN} a name in it cannot be one of a file.") from None


def _format(stated: str | None, named: str | None, below: File) -> Format:
    told = {form for form in (stated, named) if form is not None}
    if len(told) > 1:
        raise NotSupported(
            "An image states two formats for the one below it; say which is right: "
            "qemu-img rebase -u -b <its name> -F <its format>"
        )
    if not told and headers.is_qcow2(below.fd):
        return Format.QCOW2
    form = told.pop() if told else None
    if form not in tuple(Format):
        raise NotSupported(
            "The image below it has neither of the formats qcow2 and raw, or states none; if it is raw, say so: "
            "qemu-img rebase -u -b <its name> -F raw"
        )
    if form == Format.QCOW2 and not headers.is_qcow2(below.fd):
        raise Refused(f"{_BROKEN} an image in it has no qcow2 header.")
    return Format(form)
