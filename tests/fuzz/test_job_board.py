"""Whatever stands on a job board, reading it gives postings of the right shape, or none."""

from __future__ import annotations

import json
import uuid
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from stillframe.engine import postings
from tests.fuzz.cases import bounded
from tests.fuzz.hostility import CASES, TWISTS, Twist, twisted

RIGHT: Final[dict[str, Any]] = {
    "uuid": "11111111-1111-1111-1111-111111111111",
    "name": "22222222-2222-2222-2222-222222222222",
    "sequence": 7,
    "priority": "NORMAL",
    "created_on": "2026-11-26T00:00:00",
    "details": {},
}
#: What decoders may break at: deep, long by its own word, of types of its own, of no type.
ODD: Final = [
    *(b"\x91" * 2000, b"\x81\xa1a" * 1300, b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xc7\x01\x00x", b"\xc7\x01\x01x", b"\xc7\x01\x02x", b"\xc7\x01\x03x", b"\xc7\x01\x04\x80", b"\xd6\x05xxxx"),
    *(b"\xc1", b"\x80\x04\x95cposix\nsystem\n", b"[" * 4000, b"x" * 5000, b"", b"\x00"),
]

_SECONDS: Final = 10.0


def _is_right(found: postings.Posting | None) -> bool:
    if found is None:
        return True
    return (
        str(uuid.UUID(found["uuid"])) == found["uuid"] and found["name"].isascii() and 0 <= found["sequence"] < 1 << 63
    )


@given(twist=TWISTS)
@CASES
def test_a_posting_on_etcd_is_right_or_none(twist: Twist) -> None:
    blob = twisted(twist, RIGHT, json.dumps(RIGHT).encode())
    with bounded(_SECONDS):
        assert _is_right(postings.from_text(blob))
        held = postings.owner_from_text(blob)
    assert isinstance(held["owner"], str)


@given(twist=TWISTS, odd=st.none() | st.sampled_from(ODD) | st.binary(max_size=80))
@CASES
def test_a_posting_on_redis_is_right_or_none(twist: Twist, odd: bytes | None) -> None:
    blob = odd
    if blob is None:
        changed = twisted(twist, RIGHT, json.dumps(RIGHT).encode())
        try:
            blob = msgpack.packb(json.loads(changed))
        except (ValueError, TypeError, RecursionError, OverflowError):
            blob = changed
    with bounded(_SECONDS):
        assert _is_right(postings.from_msgpack(blob))


def test_a_right_posting_is_read() -> None:
    assert postings.from_text(json.dumps(RIGHT).encode()) is not None
    assert postings.from_msgpack(msgpack.packb(RIGHT)) is not None
    assert postings.owner_from_text(b'{"owner": "me", "lease_id": "5"}') == {"owner": "me", "lease_id": "5"}
