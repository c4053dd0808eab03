"""Images whose headers are anything: what is made of them is an error of ours or a sound answer, soon and small."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillframe.domain.errors import StillframeError
from stillframe.drivers.files import chains, headers
from stillframe.drivers.files.images import Images
from stillframe.drivers.image_files import opening
from stillframe.drivers.image_files.formats import Format
from tests.fuzz.cases import bounded

_CASES = settings(
    derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
_SECONDS = 5.0  # of one case, on a busy machine; qemu-img takes a few hundredths
_GROWTH = 128 << 20  # bytes; a single field of a header can ask for thousands of times as much

#: Magic words and where they lie, of all formats that somebody might take for an image.
_MAGICS = [
    (0, b"QFI\xfb"),
    (0, b"QED\x00"),
    (0, b"KDMV"),
    (0, b"COWD"),
    (0, b'# Disk DescriptorFile\nversion=1\ncreateType="monolithicSparse"\nRW 8 FLAT "/etc/shadow" 0\n'),
    (0, b"conectix"),
    (0, b"vhdxfile"),
    (0x10000, b"\x06\xa2\xfd\x1bHEAD"),
    (0x40, struct.pack("<I", 0xBEDA107F)),
    (0, b"LUKS\xba\xbe\x00\x01"),
    (0x8001, b"CD001"),
    (510, b"\x55\xaa"),
    (0, b"WithoutFreeSpace"),
    (0, b"Bochs Virtual HD Image"),
]
_LENGTHS = {1: 0xFF, 4: 0xFFFF_FFFF, 8: 0xFFFF_FFFF_FFFF_FFFF}
#: Fields of the header, by offset and length, and values at and beyond their bounds.
_FIELDS = [(4, 4), (8, 8), (16, 4), (20, 4), (24, 8), (32, 4), (36, 4), (40, 8), (48, 8), (56, 4), (60, 4), (64, 8)]
_FEATURES = [(72, 8), (80, 8), (88, 8), (96, 4), (100, 4), (104, 1)]
_EXTENSIONS = [0xE2792ACA, 0x6803F857, 0x23852875, 0x0537BE77, 0x44415441, 0x00000000, 0x12345678]


@st.composite
def _values(draw: st.DrawFn, length: int) -> bytes:
    most = _LENGTHS[length]
    edges = st.sampled_from([0, 1, 2, 3, 8, 9, 16, 21, 22, 104, 512, 1023, 1024, 65536, most >> 1, most - 1, most])
    value = draw(edges | st.integers(0, most)) & most
    return value.to_bytes(length, "big")


@st.composite
def _extensions(draw: st.DrawFn) -> bytes:
    made = b""
    for _ in range(draw(st.integers(0, 4))):
        data = draw(st.binary(max_size=64) | st.sampled_from([b"qcow2", b"raw", b"nbd", b"/etc/shadow"]))
        length = draw(st.just(len(data)) | st.integers(0, 0xFFFF_FFFF))
        made += struct.pack(">II", draw(st.sampled_from(_EXTENSIONS)), length) + data.ljust(
            -(-len(data) // 8) * 8, b"\0"
        )
    return made


@st.composite
def _mutated(draw: st.DrawFn, sound: bytes) -> bytes:
    """A sound image with fields, extensions, and bytes anywhere replaced, and perhaps cut off."""
    image = bytearray(sound)
    for offset, length in draw(st.lists(st.sampled_from(_FIELDS + _FEATURES), max_size=4)):
        image[offset : offset + length] = draw(_values(length))
    if draw(st.booleans()):
        extensions = draw(_extensions())
        image[104 : 104 + len(extensions)] = extensions
    for position in draw(st.lists(st.integers(0, 1024), max_size=3)):
        image[position] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        name = draw(_names())
        image[600 : 600 + len(name)] = name
        image[8:20] = struct.pack(">QI", 600, draw(st.just(len(name)) | st.integers(0, 0xFFFF_FFFF)))
    if draw(st.integers(0, 9)) == 0:
        del image[draw(st.integers(0, len(image))) :]
    return bytes(image)


@st.composite
def _names(draw: st.DrawFn) -> bytes:
    start = draw(st.sampled_from([b"", b"file:", b"json:", b"nbd:", b"/", b"../", b'json:{"driver":"qcow2","file":']))
    rest = draw(
        st.binary(max_size=200) | st.sampled_from([b"image", b"[" * 1000, b'{"filename":"image"}}', b"a" * 1100])
    )
    return start + rest


@st.composite
def _foreign(draw: st.DrawFn) -> bytes:
    """Magic words of one or several formats on anything."""
    image = bytearray(draw(st.binary(max_size=256)).ljust(draw(st.sampled_from([0, 80, 512, 4096, 70_000])), b"\0"))
    for offset, magic in draw(st.lists(st.sampled_from(_MAGICS), min_size=1, max_size=3)):
        if len(image) < offset + len(magic):
            image.extend(bytes(offset + len(magic) - len(image)))
        image[offset : offset + len(magic)] = magic
    return bytes(image)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def sound(folder: Path) -> bytes:
    path = folder / "sound"
    path.touch()
    with opening.file(path, os.O_RDWR) as file:
        images = Images()
        images._qemu_img.create(file.fd, 8 << 20, ("cluster_size=65536",), None)  # noqa: SLF001 -- a seed
    return path.read_bytes()


def look(path: Path) -> None:
    """Everything that is asked of an image before it is copied, each with nothing but errors of ours."""
    images = Images(timeout=4.0, memory=512 << 20)
    with opening.file(path) as file:
        assert headers.recognized(file.fd)
        for form in Format:
            with suppress(StillframeError):
                assert 0 <= images.shape(file, form).size < 1 << 63
            with suppress(StillframeError):
                images.confirm(file, form)
            with suppress(StillframeError):
                images.require_checkable(file, form)
    with suppress(StillframeError):
        images.probe(path)
    images.below(path)


def look_at(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with bounded(_SECONDS, _GROWTH):
        look(path)


@settings(_CASES, max_examples=1600)
@given(data=st.data())
def test_mutated_qcow2_headers_are_refused_or_read(folder: Path, sound: bytes, data: st.DataObject) -> None:
    look_at(folder / "image", data.draw(_mutated(sound)))


@settings(_CASES, max_examples=600)
@given(content=_foreign() | st.binary(max_size=1024))
def test_other_formats_are_refused_or_raw(folder: Path, content: bytes) -> None:
    look_at(folder / "image", content)


@settings(_CASES, max_examples=1000)
@given(name=_names())
def test_backing_names_lead_to_a_local_file_or_are_refused(name: bytes) -> None:
    with suppress(StillframeError):
        assert chains.understood(os.fsdecode(name), Path("/images")).path.is_absolute()
