"""The formats of images."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """The image formats that disks may have."""

    RAW = "raw"
    QCOW2 = "qcow2"
