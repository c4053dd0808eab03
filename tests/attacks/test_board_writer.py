"""The attacker may write to the Redis or etcd that the job board is on; nobody is held up, and nothing changes."""

from __future__ import annotations

import json
import threading
import time
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import Any, Final

import msgpack  # type: ignore[import-untyped]
import pytest
from taskflow import states

from stillframe.engine import etcd_board, redis_board
from stillframe.engine.job_board import JobBoard
from tests.engine.test_job_board import Servers, Users, servers, soon, waited
from tests.lab.boards import options_of

__all__ = ["servers"]

OPEN: Final = "11111111-1111-1111-1111-111111111111"
FINAL: Final = "22222222-2222-2222-2222-222222222222"
HUGE: Final = 1 << 20
MOST_MEMORY: Final = 64 << 20


@pytest.fixture(params=["redis", "etcd"])
def users(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Users]:
    found = Users(options_of(servers.get(request.param).settings, namespace=f"test-{uuid.uuid4().hex}"))
    found.final = {FINAL}
    yield found
    found.close()


def posting(**changed: object) -> dict[str, object]:
    return {"uuid": str(uuid.uuid4()), "name": OPEN, "sequence": 7, "priority": "NORMAL", "created_on": "x", **changed}


#: Postings that are none: of other services, of other shapes, or that a parser may break at.
ODD: Final[list[object]] = [
    None,
    [],
    7,
    "text",
    {},
    posting(uuid=None),
    posting(uuid="../../etc"),
    posting(name=None),
    posting(name={"a": 1}),
    posting(name="a\nforged line"),
    posting(name="x" * 2000),
    posting(sequence="many"),
    posting(sequence=-1),
    posting(sequence=1.5),
    posting(sequence=[1]),
    posting(priority="HIGHEST", details={"__reduce__": "os.system"}),
]


def write_oddities(users: Users) -> int:
    """Returns how many there are."""
    return _write_to_redis(users) if users.options.backend == "redis" else _write_to_etcd(users)


def _write_to_redis(users: Users) -> int:
    board: Any = redis_board.connect(users.options)
    blobs = [msgpack.packb(one) for one in ODD]
    blobs += [
        b"",
        b"\xc1",
        b"\x91" * 3000 + b"\x00",
        b"\x81\xa1a" * 1000 + b"\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xc7\x01\x02x",
    ]
    blobs += [b"\x80\x04\x95cposix\nsystem\n", b"x" * HUGE * 8]
    for blob in blobs:
        board._client.hset(board.listings_key, str(uuid.uuid4()), blob)  # noqa: SLF001
    # Its own id is another than that of its place.
    board._client.hset(board.listings_key, str(uuid.uuid4()), msgpack.packb(posting()))  # noqa: SLF001
    board._client.hset(board.listings_key, b"\xff\xfe" * 18, b"x")  # noqa: SLF001
    board._client.hset(board.listings_key, b"k" * HUGE, b"x")  # noqa: SLF001
    count = int(board._client.hlen(board.listings_key))  # noqa: SLF001
    board.close()
    return count


def _write_to_etcd(users: Users) -> int:
    board: Any = etcd_board.connect(users.options)
    blobs = [json.dumps(one).encode() for one in ODD]
    blobs += [b"{", b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"\xff\xfe", b'{"name": "\\ud800"}', b"9" * 5000]
    blobs += [b"x" * HUGE]
    root = f"{board._root_path}/job"  # noqa: SLF001
    for number, blob in enumerate(blobs):
        board._client.put(f"{root}{5000 + number}.data", blob)  # noqa: SLF001
    board._client.put(f"{root}7x.data", json.dumps(posting()))  # noqa: SLF001
    board._client.put(f"{root}8.data", json.dumps(posting()))  # noqa: SLF001
    board._client.put(f"{root}9.dat", json.dumps(posting()))  # noqa: SLF001
    count = len(board._client.get_prefix(root))  # noqa: SLF001
    board.close()
    return count


def test_odd_postings_hold_nobody_up_and_stay_where_they_are(users: Users) -> None:
    board = users.new(tidy_seconds=0.5)
    board.announce(OPEN)
    soon(lambda: users.shown() == [(OPEN, states.UNCLAIMED)])
    count = write_oddities(users)
    wake = threading.Event()
    board.wait(wake, 0.1)
    tracemalloc.start()
    try:
        board.taken(OPEN)
        board.announce("33333333-3333-3333-3333-333333333333")
        soon(lambda: (OPEN, states.CLAIMED) in users.shown())
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    board.renew([OPEN])
    board.done(OPEN)
    board.put_back("33333333-3333-3333-3333-333333333333")
    soon(lambda: users.shown() == [("33333333-3333-3333-3333-333333333333", states.UNCLAIMED)])
    assert _answers(board)
    assert _count(users) >= count


def test_postings_that_lie_are_claims_on_nothing(users: Users) -> None:
    """Of an operation that is final, of one twice, and of one that never was: the store says what is to be done."""
    teller = users.new()
    for name in (FINAL, OPEN, OPEN, OPEN):
        teller.announce(name)
    soon(lambda: len(users.shown()) == 4)
    worker = users.new(tidy_seconds=0.5)
    worker.wait(threading.Event(), 0.1)
    soon(lambda: users.shown() == [(OPEN, states.UNCLAIMED)])


@pytest.mark.parametrize("owner", [b"somebody else", b"\xff\xfe", b"x" * HUGE, b"[" * 50_000, b'{"owner": {"a": 1}}'])
def test_a_claim_of_somebody_elses_keeps_no_worker_from_its_operation(users: Users, owner: bytes) -> None:
    board = users.new()
    board.announce(OPEN)
    soon(lambda: len(users.shown()) == 1)
    _claim(users, owner)
    board.taken(OPEN)
    board.renew([OPEN])
    board.done(OPEN)
    board.announce(FINAL)
    # What was told after it comes through: the board was not given up.
    soon(lambda: FINAL in _names(users))
    assert _answers(board)


def test_more_than_is_read_leaves_the_workers_to_look_by_themselves(users: Users) -> None:
    board = users.new()
    board.announce(OPEN)
    soon(lambda: len(users.shown()) == 1)
    for _ in range(40):
        _fill(users, b"x" * HUGE)
    tracemalloc.start()
    try:
        board.taken(OPEN)
        began = time.monotonic()
        for _ in range(3):
            waited(board, 1.0)
        _size, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 60
    assert peak < 2 * MOST_MEMORY


@pytest.mark.parametrize("value", ["no number", "9" * HUGE, ""])
def test_a_count_that_is_none_leaves_the_workers_to_look_by_themselves(users: Users, value: str) -> None:
    board, wake = users.new(), threading.Event()
    board.announce(OPEN)
    soon(lambda: len(users.shown()) == 1)
    board.wait(wake, 0.1)
    _count_to(users, value)
    began = time.monotonic()
    for _ in range(3):
        waited(board, 1.0)
    assert time.monotonic() - began < 60


def _answers(board: JobBoard) -> bool:
    return board._answers  # noqa: SLF001  # what it has logged


def _names(users: Users) -> list[str]:
    kind: Any = redis_board if users.options.backend == "redis" else etcd_board
    board = kind.connect(users.options)
    try:
        return [job.name for job in board.listed()]
    finally:
        board.close()


def _count(users: Users) -> int:
    kind: Any = redis_board if users.options.backend == "redis" else etcd_board
    board = kind.connect(users.options)
    try:
        if users.options.backend == "redis":
            return int(board._client.hlen(board.listings_key))  # noqa: SLF001
        return len(board._client.get_prefix(f"{board._root_path}/job"))  # noqa: SLF001
    finally:
        board.close()


def _fill(users: Users, blob: bytes) -> None:
    kind: Any = redis_board if users.options.backend == "redis" else etcd_board
    board = kind.connect(users.options)
    if users.options.backend == "redis":
        board._client.hset(board.listings_key, str(uuid.uuid4()), blob)  # noqa: SLF001
    else:
        board._client.put(f"{board._root_path}/job{uuid.uuid4().int % 10**12}.data", blob)  # noqa: SLF001
    board.close()


def _claim(users: Users, owner: bytes) -> None:
    kind: Any = redis_board if users.options.backend == "redis" else etcd_board
    board = kind.connect(users.options)
    job = board.listed()[0]
    if users.options.backend == "redis":
        board._client.set(job.owner_key, owner)  # noqa: SLF001
    else:
        board._client.put(job.key + board.LOCK_POSTFIX, owner)  # noqa: SLF001
    board.close()


def _count_to(users: Users, value: str) -> None:
    kind: Any = redis_board if users.options.backend == "redis" else etcd_board
    board = kind.connect(users.options)
    if users.options.backend == "redis":
        board._client.set(board.sequence_key, value)  # noqa: SLF001
    else:
        board._client.put(board._create_path(board._root_path, board.SEQUENCE_KEY), value)  # noqa: SLF001
    board.close()
