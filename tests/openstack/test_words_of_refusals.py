"""Why Nova or Cinder refuses, in their own words, whatever form these have; this needs no OpenStack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from stillframe.domain.errors import NotFound, StillframeError, TooLarge
from stillframe.domain.snapshot import CopyReference
from stillframe.drivers.openstack import documents
from tests.attacks.hostile import hostile, plain
from tests.attacks.test_cloud import nova
from tests.lab.scripted.cloud import Answer

if TYPE_CHECKING:
    from tests.openstack.played import PlayedWorld

WHY = "Maximum number of snapshots allowed (10) exceeded for quota 'snapshots'."
FORMS: dict[str, tuple[str, str]] = {
    "overLimit": ("application/json", json.dumps({"overLimit": {"code": 413, "message": WHY, "retryAfter": "0"}})),
    "computeFault": ("application/json", json.dumps({"computeFault": {"code": 413, "message": WHY}})),
    "keystone": ("application/json", json.dumps({"error": {"code": 413, "message": WHY, "title": "No"}})),
    "a list": ("application/json", json.dumps({"errors": [{"status": 413, "title": "No", "detail": WHY}]})),
    "bare": ("application/json", json.dumps({"message": WHY})),
    "a word": ("application/json", json.dumps({"error": WHY})),
    "JSON without a type": ("text/plain", json.dumps({"overLimit": {"message": WHY}})),
    "plain text": ("text/plain; charset=UTF-8", WHY),
    "no type": ("", WHY),
    "HTML": ("text/html", f"<html><style>x{{}}</style><title>413</title><body><p>{WHY.replace(chr(39), '&#x27;')}</p>"),
}
HOSTILE: dict[str, bytes] = {
    "escapes": b'{"overLimit": {"message": "no \\u001b[31m\\nforged line \\u202e"}}',
    "deep": b"[" * 100_000,
    "wide": b'{"a":' * 50 + b"1" + b"}" * 50,
    "long": b"x" * (8 << 20),
    "tags": b"<" * (1 << 20),
    "no letters": b"\xff\xfe\x00" * 1000,
    "nothing": b"",
    "numbers": b'{"overLimit": {"message": 1e999}}',
}


def refused(kind: str, content: bytes, status: int = 413) -> StillframeError:
    head = f"HTTP/1.1 {status} No\r\nConnection: close\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
    with hostile(plain(content, head.encode())) as server, pytest.raises(StillframeError) as told:
        nova(server.url).get("/servers/1", documents.SERVER)
    return told.value


@pytest.mark.parametrize("form", FORMS)
def test_the_reason_is_told_whatever_its_form(form: str) -> None:
    kind, text = FORMS[form]
    error = refused(kind, text.encode())
    assert isinstance(error, TooLarge)
    assert WHY in error.message
    assert "Unrecognized schema" not in error.message
    assert "(HTTP 413)" in error.message
    assert "<" not in error.message


@pytest.mark.parametrize("form", HOSTILE)
def test_words_that_mean_no_good_are_short_and_printable(form: str) -> None:
    for kind in ("application/json", "text/html"):
        error = refused(kind, HOSTILE[form], 400)
        assert error.message.isprintable()
        assert len(error.message) < 1000
        assert error.__cause__ is None


def test_what_is_gone_is_named_though_a_proxy_says_that_it_is(played: PlayedWorld) -> None:
    snapshot_id = "0b6f4f0e-35ab-4cf5-8f83-1d5e7b1f7a01"
    played.cloud.on("GET /volume/snapshots/", lambda: Answer(404, b"<h1>Not Found</h1>", "text/html"))
    with pytest.raises(NotFound, match=snapshot_id):
        played.drivers.storage.complete(played.a_call(), CopyReference(snapshot_id))


def test_a_snapshot_for_which_there_is_no_room_ends_with_the_words_of_cinder(played: PlayedWorld) -> None:
    document = {"overLimit": {"code": 413, "message": WHY}}
    played.cloud.on("POST /volume/snapshots ", lambda: Answer(413, document), times=2)
    shown = played.show(played.create())
    assert (shown["status"], shown["fault"]["code"]) == ("error", "too-large")
    assert WHY in shown["fault"]["message"]


def test_a_snapshot_that_was_deleted_behind_our_back_is_named_with_its_volume(played: PlayedWorld) -> None:
    snapshot_id = played.create()
    volume_id, gone = next(iter(played.show(snapshot_id)["snapshots"].items()))
    del played.cloud.snapshots[gone]
    code, words = played.restore_refused(snapshot_id)
    assert (code, gone in words, volume_id in words) == (404, True, True), words
    # As the message says.
    played.delete(snapshot_id)
    assert played.cloud.snapshots == {}
