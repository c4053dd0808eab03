"""The log as JSON: each line says which request and which operation it is about, and tells no secret."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from oslo_log.formatters import JSONFormatter

from stillframe.domain.errors import BackendError
from stillframe.logs.context import about

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.harness.world import World


class Lines(logging.Handler):
    """Keeps what it is given, as JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.documents: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.documents.append(json.loads(self.format(record)))

    def about(self, words: str) -> list[tuple[Any, Any]]:
        """Request and operation of the lines that contain some words."""
        found = [one["context"] for one in self.documents if words in one["message"]]
        return [(context.get("request_id"), context.get("operation_id")) for context in found]


@contextmanager
def logged(name: str) -> Iterator[Lines]:
    lines, logger = Lines(), logging.getLogger(name)
    before = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.removeHandler(lines)
        logger.setLevel(before)


def test_lines_of_steps_at_a_time_name_their_operation(world: World) -> None:
    with logged("stillframe.engine") as lines:
        snapshot_id = world.restore_error(world.first, world.second)
    operation = world.operation(snapshot_id)
    assert lines.about("restoring volume") == [(operation["request_id"], operation["id"])] * 2


def test_lines_of_what_is_undone_and_of_threads_below_name_it_too(world: World) -> None:
    world.faults.fail("complete", BackendError("broken"))
    world.faults.fail("delete", BackendError("broken too"))
    with logged("stillframe") as lines:
        snapshot_id = world.create()
    operation = world.operation(snapshot_id)
    expected = (operation["request_id"], operation["id"])
    assert lines.about("deleting volume snapshot") == [expected] * 2
    assert lines.about("could not all be undone") == [expected]


def test_the_line_of_a_request_has_its_id(world: World) -> None:
    with logged("stillframe.api") as lines:
        reply = world.ask("GET", "/volume/v3/demo/instance-snapshots")
    assert lines.about("instance-snapshots") == [(reply.headers["x-openstack-request-id"], None)]


def test_a_thread_says_no_more_than_it_is_about() -> None:
    log = logging.getLogger("stillframe.test")

    def speak() -> None:
        with about("req-outer", "outer"):
            with about("req-inner", "inner"):
                log.info("one")
            log.info("two")
        log.info("three")

    with logged("stillframe.test") as lines:
        thread = threading.Thread(target=speak)
        thread.start()
        thread.join()
    assert [lines.about(word) for word in ("one", "two", "three")] == [
        [("req-inner", "inner")],
        [("req-outer", "outer")],
        [(None, None)],
    ]
