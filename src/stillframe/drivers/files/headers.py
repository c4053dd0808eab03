"""What the first bytes of an image say, within the bounds of its format; an image is hostile input.

oslo.utils' inspectors recognize the formats. What they do not tell of a qcow2 image is read from the region that they
have captured; its layout and its bounds are those of QEMU's docs/interop/qcow2.txt and block/qcow2.h.
"""

from __future__ import annotations

import io
import os
import struct
from dataclasses import dataclass
from typing import Final

from oslo_utils.imageutils import format_inspector

from stillframe.domain.errors import NotSupported, Refused

_REGION: Final = 512  # bytes of the header that the inspector captures
_PROBED: Final = 68 << 10  # bytes; the last signature that the inspectors know lies 34 KiB behind the start
_LAYOUT: Final = ">4sIQIIQIIQQIIQQQQI"
_FEWEST_BITS, _MOST_BITS = 9, 21  # of a cluster's size
_LONGEST_NAME: Final = 1023
_LARGEST_L1: Final = 32 << 20
_MOST_SNAPSHOTS: Final = 65536
_MOST_REFCOUNT_ORDER: Final = 6

# Incompatible features.
_CORRUPT: Final = 1 << 1
_EXTERNAL_DATA: Final = 1 << 2
_EXTENDED_L2: Final = 1 << 4
_KNOWN: Final = (1 << 5) - 1


@dataclass(frozen=True, slots=True)
class Header:
    """What a qcow2 header says. Sizes are in bytes; `backing` is the name as it is stored, often relative."""

    size: int
    cluster: int
    backing: str | None
    encrypted: bool
    corrupt: bool
    external_data: bool
    snapshots: int
    refcount_bits: int


class NotQcow2(Refused):
    """The file has no qcow2 header."""


def read(fd: int) -> Header:
    """The qcow2 header of an open file; raises `NotQcow2`, `Refused` for one that QEMU would not open, `OSError`."""
    captured = _captured(fd)
    if captured is None:
        raise NotQcow2("It has no qcow2 header; correct the format that it is attached with, or put the image back.")
    (
        (_magic, version, name_at, name_length, cluster_bits, size, crypt_method, *_tables, snapshots, _snapshots_at),
        (incompatible, _compatible, _autoclear, refcount_order),
    ) = _fields(captured)
    _require(version in (2, 3), f"has the version {version}")
    _require(_FEWEST_BITS <= cluster_bits <= _MOST_BITS, f"says that clusters have 2^{cluster_bits} bytes")
    _require(crypt_method in (0, 1, 2), f"has the unknown encryption method {crypt_method}")
    _require(snapshots <= _MOST_SNAPSHOTS, f"says that there are {snapshots} internal snapshots")
    _require(refcount_order <= _MOST_REFCOUNT_ORDER, f"says that reference counts have 2^{refcount_order} bits")
    _require(incompatible & ~_KNOWN == 0, "has features that are not known here")
    cluster = 1 << cluster_bits
    entry = 16 if incompatible & _EXTENDED_L2 else 8
    _require(size <= _LARGEST_L1 // 8 * (cluster // entry) * cluster, "says that the disk is larger than it can be")
    _require(name_length <= _LONGEST_NAME, f"has a backing name of {name_length} bytes")
    _require(name_at + name_length <= cluster, "has its backing name outside of the header")
    return Header(
        size=size,
        cluster=cluster,
        backing=_name(fd, name_at, name_length),
        encrypted=crypt_method != 0,
        corrupt=bool(incompatible & _CORRUPT),
        external_data=bool(incompatible & _EXTERNAL_DATA),
        snapshots=snapshots,
        refcount_bits=1 << refcount_order,
    )


def is_qcow2(fd: int) -> bool:
    """Whether an open file has a qcow2 signature; raises `OSError`."""
    return _captured(fd) is not None


def recognized(fd: int) -> str:
    """The format that an open file's signature tells, `raw` where there is none, `unknown` for several."""
    wrapper = format_inspector.InspectWrapper(io.BytesIO(os.pread(fd, _PROBED, 0)))
    try:
        while wrapper.read(_REGION):
            pass
        wrapper.close()
        found = wrapper.format
    except Exception:  # noqa: BLE001 -- the inspectors of a dozen formats, on hostile bytes
        return "unknown"
    return str(found) if found is not None else "unknown"


def require_plain(header: Header) -> None:
    """Raise `NotSupported` or `Refused` for an image that is not a disk's whole content in clear, and sound."""
    if header.external_data:
        raise NotSupported(
            "It keeps its data in another file, so that it cannot be copied as one; "
            "convert it to one without: qemu-img convert -O qcow2"
        )
    if header.encrypted:
        raise NotSupported(
            "It is an encrypted qcow2 image, which can be neither checked nor copied without its key; encrypt inside "
            "of the guest, or below the file system of the images."
        )
    if header.corrupt:
        raise Refused("QEMU has marked it as corrupt; repair it with qemu-img check -r all.")


def _captured(fd: int) -> bytes | None:
    inspector = format_inspector.QcowInspector()
    inspector.eat_chunk(os.pread(fd, _REGION, 0))
    return bytes(inspector.region("header").data) if inspector.format_match else None


def _fields(captured: bytes) -> tuple[tuple[int, ...], tuple[int, ...]]:
    found = struct.unpack_from(_LAYOUT, captured)
    # Version 2 has none of the features, and reference counts of 2^4 bits.
    return found[:13], found[13:] if found[1] > 2 else (0, 0, 0, 4)  # noqa: PLR2004 -- the version


def _name(fd: int, start: int, length: int) -> str | None:
    if not start or not length:
        return None
    name = os.pread(fd, length, start)
    _require(len(name) == length and b"\0" not in name, "has a backing name that is cut off")
    return os.fsdecode(name)


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 -- reads as a sentence
    if not holds:
        raise Refused(
            f"Its qcow2 header {what}; the image is damaged, or not meant to be opened. Put a sound one in its place."
        )
