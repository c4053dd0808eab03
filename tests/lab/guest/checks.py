"""What must be true of the guest's disks in any state that they were ever in at one instant; see `writer.c`."""

from __future__ import annotations

import os
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.lab.guest.disks import raw_copy

SECTOR: Final = 512
STRIDE: Final = 4096
KEPT: Final = 64
LINE: Final = 64

_RECORD: Final = struct.Struct("<8sQII484sI")


@dataclass(frozen=True, slots=True)
class FilesState:
    """`frozen`: the file system was at rest, for nothing is left in its journal. `last`: the newest file in the log."""

    frozen: bool
    last: int


def check_order(disk_a: Path, disk_b: Path) -> tuple[int, int]:
    """The last record on each disk; fails if the two were never in this state at one instant.

    Record n is written to A and then to B, so A holds as many records as B, or one more. Either disk must hold every
    record that its header promises, and at most the one that comes next.
    """
    at_a, at_b = check_disk(disk_a, 0), check_disk(disk_b, 1)
    assert at_b <= at_a, f"B holds record {at_b} although A has only {at_a}: A was cut before B"
    assert at_a <= at_b + 1, f"A holds record {at_a} although B has only {at_b}: B was cut before A"
    return at_a, at_b


def check_disk(path: Path, disk: int) -> int:
    """The last record on one of the two disks (0: A, 1: B); fails if the disk was never in this state."""
    with raw_copy(path) as raw:
        content = raw.read_bytes()
    name = "AB"[disk]
    if not any(content[:SECTOR]):
        assert not any(content[STRIDE * 3 :]), f"{name} holds records but no header"
        return 0
    last, slots = _record(content, 0, b"SFHEADER", disk, f"the header of {name}")
    for sequence in range(max(1, last + 2 - slots), last + 1):
        found, _ = _record(content, _offset(sequence, slots), b"SFRECORD", disk, f"record {sequence} of {name}")
        assert found == sequence, f"{name} says it has {last} records, but in the place of {sequence} is {found}"
    following = content[_offset(last + 1, slots) :][:SECTOR]
    if any(following):
        found, _ = _record(content, _offset(last + 1, slots), b"SFRECORD", disk, f"the record after {last} of {name}")
        assert found in (last + 1, last + 1 - slots), f"{name} says it has {last} records, but it also has {found}"
    return last


def check_filesystem(path: Path) -> FilesState:
    """The state of the third disk; fails if it was never in that state.

    A copy's journal is replayed if there is anything in it. Then `e2fsck` must find nothing, and the newest files that
    the log promises must be there with their checksums.
    """
    with raw_copy(path) as raw, TemporaryDirectory(dir=path.parent) as scratch:
        features = _run("dumpe2fs", "-h", str(raw)).stdout
        frozen = "needs_recovery" not in features
        if not frozen:
            replay = _run("e2fsck", "-fy", "-E", "journal_only", str(raw))
            assert replay.returncode in (0, 1), f"the journal cannot be replayed: {replay.stdout}{replay.stderr}"
        check = _run("e2fsck", "-fn", str(raw))
        assert check.returncode == 0, f"the file system is damaged: {check.stdout}{check.stderr}"
        _run("debugfs", "-R", f"rdump /files {scratch}", str(raw))
        files = Path(scratch, "files")
        return FilesState(frozen, _check_files(files) if files.is_dir() else 0)


def _check_files(files: Path) -> int:
    log = (files / "log").read_bytes() if (files / "log").exists() else b""
    lines = [log[at : at + LINE] for at in range(0, len(log) - LINE + 1, LINE)]
    for number, line in enumerate(lines, start=1):
        assert line.startswith(b"%020d " % number), f"line {number} of the log is {line!r}"
    for number in range(max(1, len(lines) - KEPT + 1), len(lines) + 1):
        path = files / f"{number:020}"
        assert path.exists(), f"the log has {len(lines)} lines, but file {number} is missing"
        assert path.read_bytes()[:LINE] == lines[number - 1], f"file {number} and the log differ"
    for path in files.glob("[0-9]*"):
        content = path.read_bytes()
        _, size, checksum = content[:LINE].split()
        assert len(content) == LINE + int(size), f"file {path.name} has {len(content)} bytes"
        assert zlib.crc32(content[LINE:]) == int(checksum, 16), f"file {path.name} has another checksum"
    return len(lines)


def _record(content: bytes, offset: int, magic: bytes, disk: int, what: str) -> tuple[int, int]:
    """The sequence number and the number of slots in a sector; fails if the sector is not whole."""
    sector = content[offset : offset + SECTOR]
    found_magic, sequence, slots, found_disk, _, checksum = _RECORD.unpack(sector)
    assert checksum == zlib.crc32(sector[:-4]), f"{what} has another checksum"
    assert found_magic == magic, f"{what} is marked {found_magic!r}"
    assert found_disk == disk, f"{what} belongs to the other disk"
    return sequence, slots


def _offset(sequence: int, slots: int) -> int:
    return int(STRIDE * (1 + sequence % slots))


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
