"""The lab guest works, and its checks can tell a good cut from a bad one."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.lab.guest.checks import check_filesystem, check_order
from tests.lab.guest.disks import Disks, Format, converted, copied, make_disks
from tests.lab.guest.image import GuestUnavailableError, Image, build_image
from tests.lab.guest.machine import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.guest


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    try:
        return build_image(tmp_path_factory.mktemp("image"))
    except GuestUnavailableError as problem:
        pytest.skip(str(problem))


@pytest.fixture(scope="module", params=["raw", "qcow2"])
def guest(request: pytest.FixtureRequest, image: Image) -> Iterator[Guest]:
    image_format: Format = request.param
    with TemporaryDirectory(prefix="guest-") as directory:
        guest = Guest(image, Path(directory, "run"), make_disks(Path(directory, "disks"), image_format))
        try:
            guest.start()
            yield guest
        finally:
            guest.kill()


@pytest.fixture
def copies(guest: Guest) -> Path:
    """A place for copies that is on the same file system as the disks."""
    directory = guest.directory.parent / "copies"
    directory.mkdir(exist_ok=True)
    return directory


def test_the_agent_answers_and_the_writers_advance(guest: Guest) -> None:
    assert guest.agent_answers()
    assert guest.status == "running"
    guest.wait_until_written()


def test_the_disks_are_found_by_their_files(guest: Guest) -> None:
    nodes = {node["file"]: node["node-name"] for node in guest.control("query-named-block-nodes", flat=True)}
    assert set(map(str, guest.disks.paths)) <= set(nodes)
    assert {"disk0", "disk1", "disk2"} <= {block["inserted"]["node-name"] for block in guest.control("query-block")}


def test_copies_of_a_paused_guest_keep_the_order(guest: Guest, copies: Path) -> None:
    for _ in range(3):
        guest.wait_until_written()
        guest.control("stop")
        try:
            copy = guest.disks.copied_to(copies)
        finally:
            guest.control("cont")
        at_a, at_b = check_order(copy.order_a, copy.order_b)
        assert at_a - at_b in (0, 1)
        assert not check_filesystem(copy.files).frozen


def test_copies_made_one_after_another_break_the_order(guest: Guest, copies: Path) -> None:
    """Each copy is made in a pause and good in itself, and still no two of them belong together."""
    early = paused_copy(guest, copies / "early")
    guest.wait_until_written()
    late = paused_copy(guest, copies / "late")
    with pytest.raises(AssertionError, match="A was cut before B"):
        check_order(early.order_a, late.order_b)
    with pytest.raises(AssertionError, match="B was cut before A"):
        check_order(late.order_a, early.order_b)


def test_a_copy_of_one_disk_after_the_other_from_a_running_guest_is_noticed(guest: Guest, copies: Path) -> None:
    copied(guest.disks.order_a, copies / "a")
    guest.wait_until_written()
    copied(guest.disks.order_b, copies / "b")
    with pytest.raises(AssertionError):
        check_order(copies / "a", copies / "b")


def test_a_frozen_file_system_is_at_rest_although_the_guest_runs(guest: Guest, copies: Path) -> None:
    assert guest.ask_agent("guest-fsfreeze-freeze") == 1
    try:
        frozen = copied(guest.disks.files, copies / "frozen")
        before = guest.position("order")
        time.sleep(2.5)
        assert guest.position("order") > before
    finally:
        assert guest.ask_agent("guest-fsfreeze-thaw") == 1
    state = check_filesystem(frozen)
    assert state.frozen
    assert state.last > 0
    guest.wait_until_written()


@pytest.mark.parametrize("changed", ["order_a", "order_b", "files"])
def test_a_mixture_of_two_instants_is_noticed(guest: Guest, copies: Path, changed: str) -> None:
    """What a restore that stops half way would leave: parts of a disk from one copy, the rest from another."""
    begun = guest.position("order"), guest.position("files")
    old = paused_copy(guest, copies / "old")
    # Both have to have gone round their disks since: between two copies that are near, hardly a block differs.
    while guest.position("order") < begun[0] + 100 or guest.position("files") < begun[1] + 100:
        guest.wait_until_written()
    new = paused_copy(guest, copies / "new")
    check_all(new)
    other = converted(getattr(old, changed), copies / "other")

    def noticed(half: int) -> bool:
        mixed = converted(getattr(new, changed), copies / f"mixed-{half}")
        mix(mixed, other, half)
        try:
            check_all(replace(new, **{changed: mixed}))
        except AssertionError:
            return True
        return False

    # All that the guest has written last can lie within one half.
    assert any(noticed(half) for half in range(2))


def test_two_disks_in_each_other_s_place_are_noticed(guest: Guest, copies: Path) -> None:
    copy = paused_copy(guest, copies)
    with pytest.raises(AssertionError, match="belongs to the other disk"):
        check_order(copy.order_b, copy.order_a)


def test_the_guest_shuts_down_by_its_power_button_and_by_its_agent_and_goes_on_afterwards(guest: Guest) -> None:
    guest.wait_until_written()
    guest.shut_down()
    assert "Power down" in guest.console
    order = check_order(guest.disks.order_a, guest.disks.order_b)
    files = check_filesystem(guest.disks.files)
    guest.start()
    assert f"order: starts from A={order[0]} B={order[1]}" in guest.console
    assert f"files: starts from {files.last}" in guest.console
    guest.wait_until_written()
    guest.tell_agent("guest-shutdown")
    deadline = time.monotonic() + 120
    while guest.running and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not guest.running
    guest.start()


def test_a_killed_guest_finds_its_order_again(guest: Guest) -> None:
    guest.wait_until_written()
    guest.kill()
    check_order(guest.disks.order_a, guest.disks.order_b)
    check_filesystem(guest.disks.files)
    guest.start()
    guest.wait_until_written()


def test_the_guest_runs_without_an_agent_and_at_a_given_rate(image: Image, tmp_path: Path) -> None:
    with TemporaryDirectory(prefix="guest-") as directory:
        disks = make_disks(tmp_path)
        guest = Guest(image, Path(directory, "run"), disks, agent=False, order_rate=5, files_rate=2)
        try:
            began = time.monotonic()
            guest.start()
            assert not guest.agent_answers()
            guest.wait_until_written()
            time.sleep(4)
            # Its clock may stand still and make up for it, but never runs ahead of ours.
            assert guest.position("order") <= 5 * (time.monotonic() - began) + 1
            guest.shut_down()
            quiet = replace(guest, writers=False)
            quiet.start()
            guest.kill()
            assert check_order(disks.order_a, disks.order_b)[0] > 0
        finally:
            guest.kill()


def paused_copy(guest: Guest, directory: Path) -> Disks:
    guest.control("stop")
    try:
        return guest.disks.copied_to(directory)
    finally:
        guest.control("cont")


def check_all(disks: Disks) -> None:
    check_order(disks.order_a, disks.order_b)
    check_filesystem(disks.files)


def mix(path: Path, other: Path, half: int) -> None:
    """Put what `other` has into `path`, every other 64 KiB of it, beginning with the first or the second."""
    with path.open("r+b") as target, other.open("rb") as source:
        for offset in range(half * 65536, path.stat().st_size, 131072):
            source.seek(offset)
            target.seek(offset)
            target.write(source.read(65536))
