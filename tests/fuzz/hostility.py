"""Replies that are wrong in every way that one thinks of, made of replies that are right."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import requests
import urllib3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from requests.adapters import HTTPAdapter

from stillframe.domain.errors import StillframeError
from tests.fuzz.cases import bounded

#: For each of these suites.
CASES: Final = settings(
    max_examples=2000,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)

_VALUES: Final[list[Any]] = [
    *(None, True, False, 0, -1, 1.5, 10**30, 1 << 63, [], {}, [[]], [None], {"a": 1}, {"id": None}, [{}]),
    *(
        "",
        "x",
        "yes",
        "-1",
        "1e999",
        "9" * 4000,
        "x" * 3000,
        "a\nforged line",
        "\x1b[31m",
        "\x00",
        "../..",
        "*",
        "é" * 70,
    ),
    *("available", "error", "deleting", "ACTIVE", "ERROR", "PAUSED", "copying", "stopped", "prepared", "0001-01-01"),
    *("2026-01-01T00:00:00+99:00", "9999-12-31T23:59:59-14:00", "NaN"),
]
_BODIES: Final = [
    *(
        b"",
        b"null",
        b"[]",
        b"{}",
        b"0",
        b'""',
        b"true",
        b"NaN",
        b"[1e999]",
        b"-Infinity",
        b"{",
        b'{"a"',
        b"[" * 100_000,
    ),
    *(b'{"a":' * 100_000, b'"\\ud800"', b'"\xff"', b"<html>Please log in.</html>", b"\x1f\x8b\x08\x00", b"9" * 10_000),
    *(b'{"a": 1, "a": 2}', b"{} {}", b"[{}" + b",{}" * 2000 + b"]", b'{"token": "a\\nb"}', b"\x00", b"not found"),
]
_STATUSES: Final = [
    100,
    200,
    201,
    202,
    204,
    299,
    300,
    301,
    304,
    307,
    400,
    401,
    403,
    404,
    409,
    413,
    418,
    429,
    500,
    503,
    999,
]
_HEADERS: Final = [
    *({"Content-Encoding": "gzip"}, {"Content-Type": "text/html"}, {"Location": "http://elsewhere.test/"}),
    *({"Location": "http://[broken"}, {"X-Subject-Token": "\xff"}, {"Content-Length": "-1"}, {"Retry-After": "1e999"}),
]


@dataclass(frozen=True)
class Twist:
    """What is done to one reply: `value` takes the place of what `steps` lead to, and so on."""

    kind: str
    steps: tuple[int, ...] = ()
    value: Any = None


TWISTS: Final = st.one_of(
    st.builds(Twist, st.just("value"), st.lists(st.integers(0, 40), max_size=6).map(tuple), st.sampled_from(_VALUES)),
    st.builds(Twist, st.just("value"), st.lists(st.integers(0, 40), max_size=6).map(tuple), st.text(max_size=40)),
    st.builds(Twist, st.just("drop"), st.lists(st.integers(0, 40), min_size=1, max_size=6).map(tuple)),
    st.builds(Twist, st.just("body"), value=st.sampled_from(_BODIES)),
    st.builds(Twist, st.just("body"), value=st.binary(max_size=60)),
    st.builds(Twist, st.just("cut"), value=st.integers(0, 3000)),
    st.builds(Twist, st.just("status"), value=st.sampled_from(_STATUSES)),
    st.builds(Twist, st.just("headers"), value=st.sampled_from(_HEADERS)),
    st.builds(Twist, st.just("lost")),
)

_LONGEST_MESSAGE: Final = 3000

#: Which replies are twisted how; the first is number 0.
PLANS: Final = st.dictionaries(st.integers(0, 14), TWISTS, max_size=4)

Answer = Callable[[requests.PreparedRequest], tuple[int, Any, dict[str, str]]]


class Twisting(HTTPAdapter):
    """Answers without any network, and wrongly as planned."""

    answer: Answer
    plan: dict[int, Twist]
    count = 0

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        twist = self.plan.get(self.count)
        self.count += 1
        status, document, headers = self.answer(request)
        content = b"" if document is None else json.dumps(document).encode()
        if twist is not None:
            if twist.kind == "lost":
                raise requests.ConnectionError("the reply was lost", request=request)
            status = twist.value if twist.kind == "status" else status
            headers = headers | (twist.value if twist.kind == "headers" else {})
            content = twisted(twist, document, content)
        raw = urllib3.HTTPResponse(io.BytesIO(content), headers, status, preload_content=False)
        return self.build_response(request, raw)


def twisted(twist: Twist, document: Any, content: bytes) -> bytes:
    """The bytes of a reply that is twisted."""
    if twist.kind == "body":
        return bytes(twist.value)
    if twist.kind == "cut":
        return content[: twist.value]
    if twist.kind in ("value", "drop"):
        return json.dumps(_changed(copy.deepcopy(document), twist)).encode("utf-8", "surrogatepass")
    return content


def _changed(document: Any, twist: Twist) -> Any:
    place, steps = document, list(twist.steps)
    while steps:
        keys = list(place) if isinstance(place, dict) else list(range(len(place))) if isinstance(place, list) else []
        if not keys:
            return document
        key = keys[steps.pop(0) % len(keys)]
        if not steps or not isinstance(place[key], (dict, list)):
            if twist.kind == "drop":
                del place[key]
            else:
                place[key] = twist.value
            return document
        place = place[key]
    return twist.value if twist.kind == "value" else document


def require_ours(act: Callable[[], object], seconds: float, *secrets: str) -> None:
    """See that something ends in bounded time and memory, if not well then with an error of ours that can be shown."""
    error = None
    with bounded(seconds):
        try:
            act()
        except StillframeError as raised:
            error = raised
    while error is not None:
        assert isinstance(error, StillframeError)
        assert not [one for one in secrets if one in error.message]
        assert error.message.isprintable()
        assert len(error.message) < _LONGEST_MESSAGE
        error = error.__cause__  # type: ignore[assignment]  # looked at in the next round
