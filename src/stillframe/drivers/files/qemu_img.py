"""The program qemu-img: what it is asked, and what it may take of this machine for it.

It is started on open descriptors and opens nothing else: no backing file, no data file. An image that it looks at is
hostile input, so memory, processor time, output and total time have a bound. Its words go to the log, never to a user.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from stillframe.domain.errors import BackendError, Damaged, Refused, Unavailable

LOG = logging.getLogger(__name__)

PROGRAM: Final = "qemu-img"
POLL_SECONDS: Final = 0.02

_MEMORY: Final = 512 << 20
_STACK: Final = 2 << 20  # of each of its threads, which count as memory whether they use it or not
_OUTPUT: Final = 1 << 20
_TOLD: Final = 2000  # characters of its words in the log
_CORRUPTIONS: Final = 2  # exit codes of qemu-img check
_LEAKS: Final = 3
_NOT_FOUND: Final = 127  # of prlimit, as of a shell
_NO_MEMORY: Final = "Cannot allocate memory"


class _Bitmap(BaseModel):
    model_config = ConfigDict(extra="ignore")

    name: str


class _Qcow2(BaseModel):
    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    compat: str
    refcount_bits: int = Field(alias="refcount-bits")
    compression_type: str = Field(default="zlib", alias="compression-type")
    lazy_refcounts: bool = Field(default=False, alias="lazy-refcounts")
    extended_l2: bool = Field(default=False, alias="extended-l2")
    bitmaps: tuple[_Bitmap, ...] = ()


class _Specific(BaseModel):
    model_config = ConfigDict(extra="ignore")

    data: _Qcow2


class _Info(BaseModel):
    model_config = ConfigDict(extra="ignore")

    cluster_size: int = Field(alias="cluster-size")
    specific: _Specific = Field(alias="format-specific")
    backing_format: str | None = Field(default=None, alias="backing-filename-format")


@dataclass(frozen=True, slots=True)
class Description:
    """What qemu-img tells of one qcow2 image: the format of the file below it, if that is said, and how it was made.

    `options` are those of `qemu-img create` that make an image of the same kind. `bitmaps` counts dirty bitmaps.
    """

    backing_format: str | None
    options: tuple[str, ...]
    bitmaps: int


@dataclass(frozen=True, slots=True)
class _Limits:
    memory: int
    processor_seconds: int
    seconds: float


class QemuImg:
    """Runs qemu-img. `timeout` in seconds is for each call but `check`; `memory` in bytes is what a check may take.

    `program` is its name or path; while it runs, whoever waits for it is called every `poll_seconds`.
    """

    def __init__(
        self,
        timeout: float,
        *,
        memory: int,
        check_seconds: float,
        program: str = PROGRAM,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._program = program
        self._poll_seconds = poll_seconds
        self._quick = _Limits(_MEMORY, 10, timeout)
        self._check = _Limits(memory, int(check_seconds), check_seconds)

    def describe(self, fd: int) -> Description:
        """What qemu-img tells of an open qcow2 image; raises `Refused` if it cannot be told."""
        command = ("info", "-U", "--output=json", _options(fd))
        code, said, _complaint = self._run(self._quick, command, (fd,), bounded=True)
        try:
            info = _Info.model_validate_json(said) if code == 0 else None
        except ValidationError:
            info = None
        if info is None:
            raise Refused("qemu-img cannot read it as a qcow2 image; see the service's log for its words.")
        found = info.specific.data
        options = {
            "compat": found.compat,
            "cluster_size": str(info.cluster_size),
            "refcount_bits": str(found.refcount_bits),
        }
        if found.compat != "0.10":
            options["compression_type"] = found.compression_type
            options["lazy_refcounts"] = _switch(on=found.lazy_refcounts)
            options["extended_l2"] = _switch(on=found.extended_l2)
        made = tuple(f"{key}={value}" for key, value in options.items())
        return Description(info.backing_format, made, len(found.bitmaps))

    def create(self, fd: int, size: int, options: Sequence[str], backing: tuple[str, str] | None) -> None:
        """Make an empty qcow2 image in an open file; `backing` is name as stored, and format."""
        below = ("-u", "-b", backing[0], "-F", backing[1]) if backing else ()
        command = ("create", "-q", "-f", "qcow2", "-o", ",".join(options), *below, _inherited(fd), str(size))
        code, _said, _complaint = self._run(self._quick, command, (fd,), bounded=False)
        if code:
            raise BackendError("qemu-img cannot make the image of the copy; see the service's log for its words.")

    def check(self, fd: int, tick: Callable[[], None]) -> None:
        """Raise `Damaged` if an open qcow2 image is inconsistent; lost clusters lose nothing and are fine."""
        code, _said, complaint = self._run(self._check, ("check", "-q", _options(fd)), (fd,), bounded=True, tick=tick)
        if code in (0, _LEAKS):
            return
        if code == _CORRUPTIONS:
            raise Damaged("The qcow2 image is inconsistent, says qemu-img check; see the service's log for its words.")
        if code < 0 or _NO_MEMORY in complaint:
            raise BackendError(
                "The qcow2 image cannot be checked with the memory and processor time that a check may take; make its "
                "clusters larger: qemu-img convert -O qcow2 -o cluster_size=64k"
            )
        raise Damaged("The qcow2 image cannot be checked, says qemu-img; see the service's log for its words.")

    def _run(
        self,
        limits: _Limits,
        arguments: Sequence[str],
        fds: Sequence[int],
        *,
        bounded: bool,
        tick: Callable[[], None] = lambda: None,
    ) -> tuple[int, str, str]:
        command = [
            "prlimit",
            f"--as={limits.memory}",
            f"--cpu={limits.processor_seconds}",
            f"--stack={_STACK}",
            "--core=0",
            # Nobody reads more than this, and whoever writes more is ended by the kernel.
            *((f"--fsize={_OUTPUT}",) if bounded else ()),
            self._program,
            *arguments,
        ]
        with _memory("said") as said, _memory("complaint") as complaint:
            code = _ended(command, fds, (said.fileno(), complaint.fileno()), limits.seconds, self._poll_seconds, tick)
            texts = [os.pread(one.fileno(), _OUTPUT, 0).decode(errors="replace") for one in (said, complaint)]
        if code == _NOT_FOUND:
            raise BackendError("qemu-img is not installed, and qcow2 images need it; install qemu-utils.")
        if code not in (0, _LEAKS):
            LOG.warning("qemu-img %s ended with %d (%s): %.2000r", arguments[0], code, _signal(code), texts[1][:_TOLD])
        return code, texts[0], texts[1]


def _ended(
    command: Sequence[str],
    fds: Sequence[int],
    outputs: tuple[int, int],
    seconds: float,
    poll_seconds: float,
    tick: Callable[[], None],
) -> int:
    end = time.monotonic() + seconds
    # One heap for all threads: each of its own would take address space that is never used, and that has a bound.
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "MALLOC_ARENA_MAX": "1"}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=outputs[0], stderr=outputs[1], pass_fds=fds, env=environment
        )
    except FileNotFoundError:
        raise BackendError("prlimit is not installed, and it bounds qemu-img; install util-linux.") from None
    with process:
        try:
            while True:
                try:
                    return process.wait(poll_seconds)
                except subprocess.TimeoutExpired:
                    tick()
                if time.monotonic() > end:
                    raise Unavailable(f"qemu-img did not end within {seconds:g} s.")
        finally:
            process.kill()


def _memory(name: str) -> FileIO:
    return FileIO(os.memfd_create(name, os.MFD_CLOEXEC), "r+")


def _inherited(fd: int) -> str:
    return f"/proc/self/fd/{fd}"


def _options(fd: int) -> str:
    # Said in full, so that nothing in the image has a say in what is opened.
    target = {"driver": "qcow2", "file": {"driver": "file", "filename": _inherited(fd)}, "backing": None}
    return f"json:{json.dumps(target)}"


def _switch(*, on: bool) -> str:
    return "on" if on else "off"


def _signal(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else "no signal"
