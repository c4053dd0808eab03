"""What strangers say in the place of JSON lines: half of it well formed, and none of it to be relied on."""

from __future__ import annotations

import resource
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from tests.lab.speakers import line

if TYPE_CHECKING:
    from collections.abc import Iterator

#: As many cases everywhere, and the same ones.
fuzzed = settings(
    max_examples=2000,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["frozen", "thawed", 1e999, 10**400, -1, 0, 2, "\x1b[2J", "\ud800"]),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
REPLIES = st.one_of(
    st.builds(lambda value: line({"return": value}), VALUES),
    st.builds(lambda value: line({"error": value}), VALUES),
    st.builds(lambda value: line({"error": {"class": "GenericError", "desc": value}}), VALUES),
    st.builds(line, VALUES),
)
REPEATED: Final = (b"[", b"{}\n", b"9", b'{"a":', b"\n")
NOISE = st.one_of(
    st.binary(max_size=64),
    st.sampled_from([b"\n", b"\xff", b"{", b"}", b"[", b'"', b"\\", b"0", b"\x00"]),
    st.builds(lambda some, count: some * count, st.sampled_from(REPEATED), st.integers(1, 3000)),
)
WORDS = st.lists(st.one_of(REPLIES, REPLIES, NOISE), min_size=1, max_size=4).map(b"".join)


@contextmanager
def bounded(seconds: float, most_bytes: int = 64 << 20) -> Iterator[None]:
    """See that a block takes no longer, and that the most memory that this process ever had grows by no more.

    Modules that are loaded by a first case are in that.
    """
    before, begun = _most_memory(), time.monotonic()
    yield
    assert time.monotonic() - begun < seconds
    assert _most_memory() - before < most_bytes


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
