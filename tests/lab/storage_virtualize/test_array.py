"""The simulated array by itself: bytes, dependence, time and refusals of FlashCopy."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.storage_virtualize import commands
from tests.lab.storage_virtualize.array import Array, bytes_a_second
from tests.lab.storage_virtualize.objects import GRAIN, Behaviour, Limits, Refusal

SIZE = 4 * GRAIN


class Bench:
    """An array whose clock is moved by hand, with one volume."""

    def __init__(self, **behaviour: Any) -> None:
        self.now = 0.0
        self.array = Array(behaviour=Behaviour(**behaviour), clock=lambda: self.now)
        self.array.add_vdisk("volume", SIZE)

    def run(self, command: str, subject: str | None = None, **parameters: Any) -> Any:
        return commands.run(self.array, command, subject, parameters)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.array.advance()

    def snapshot(self, name: str) -> None:
        self.run("mkvdisk", name=name, size=SIZE, unit="b", mdiskgrp="pool0")
        self.run("mkfcmap", source="volume", target=name, name=f"map-{name}", copyrate=0)
        self.run("startfcmap", f"map-{name}", prep=True)

    def restore(self, name: str, rate: int = 50) -> None:
        self.run("mkfcmap", source=name, target="volume", name="back", copyrate=rate, autodelete=True)
        self.run("startfcmap", "back", prep=True, restore=True)

    def write(self, letter: str, grain: int = 0) -> None:
        self.array.write("volume", grain * GRAIN, letter.encode() * GRAIN)

    def letters(self, name: str) -> str:
        content = self.array.read(name)
        return "".join(chr(content[grain * GRAIN]) for grain in range(4)).replace("\0", "-")

    def status(self, name: str) -> str:
        return str(self.run("lsfcmap", name)["status"])


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def three(bench: Bench) -> Bench:
    """Snapshots `old`, `mid` and `new`, of a volume that is written to at other places in between."""
    for name, letter, grain in (("old", "a", 0), ("mid", "b", 1), ("new", "c", 2)):
        bench.write(letter, grain)
        bench.snapshot(name)
    bench.write("x", 0)
    bench.write("y", 3)
    return bench


def refused(bench: Bench, code: str, command: str, subject: str | None = None, **parameters: Any) -> None:
    with pytest.raises(Refusal) as refusal:
        bench.run(command, subject, **parameters)
    assert refusal.value.code == code


CONTENTS = {"old": "a---", "mid": "ab--", "new": "abc-"}


def test_each_snapshot_reads_as_the_volume_was(three: Bench) -> None:
    assert {name: three.letters(name) for name in CONTENTS} == CONTENTS
    assert three.letters("volume") == "xbcy"


def test_an_older_snapshot_reads_through_the_newer_one(three: Bench) -> None:
    # Only the newest took what was written over; the others find it there.
    held = {name: three.array.vdisks[name].held() for name in CONTENTS}
    assert held == {"old": 1, "mid": 1, "new": 2}
    assert [one["fc_name"] for one in three.run("lsfcmapdependentmaps", "map-new")] == ["map-mid"]


@pytest.mark.parametrize("chosen", ["old", "mid", "new"])
def test_a_reverse_mapping_restores_any_snapshot_and_keeps_all(three: Bench, chosen: str) -> None:
    three.restore(chosen)
    assert three.letters("volume") == CONTENTS[chosen]
    assert {name: three.letters(name) for name in CONTENTS} == CONTENTS
    three.wait(10)
    assert three.letters("volume") == CONTENTS[chosen]
    assert "back" not in {one.name for one in three.array.mappings.values()}
    three.write("z", 1)
    assert {name: three.letters(name) for name in CONTENTS} == CONTENTS


def test_a_restored_volume_can_be_written_while_it_is_copied(three: Bench) -> None:
    three.restore("old", rate=1)
    three.write("z", 0)
    three.wait(60)
    assert three.letters("volume") == "z---"
    assert {name: three.letters(name) for name in CONTENTS} == CONTENTS


def test_copying_takes_the_time_that_the_rate_says(bench: Bench) -> None:
    assert (bytes_a_second(50), bytes_a_second(100), bytes_a_second(150)) == (2 << 20, 64 << 20, 2 << 30)
    bench.snapshot("old")
    for grain in range(3):
        bench.write("x", grain)
    bench.restore("old", rate=1)
    assert bench.run("lsfcmapprogress", "back")["progress"] == "25"
    bench.wait(1)
    assert bench.run("lsfcmapprogress", "back")["progress"] == "75"
    assert bench.run("lsfcmap", "back")["restoring"] == "yes"
    bench.wait(1)
    refused(bench, "CMMVC5804E", "lsfcmap", "back")


def test_stopping_a_snapshot_gives_the_older_ones_their_bytes_first(three: Bench) -> None:
    three.run("chfcmap", "map-new", cleanrate=1)
    three.run("stopfcmap", "map-new")
    assert three.status("map-new") == "stopping"
    refused(three, "CMMVC5908E", "rmfcmap", "map-new", force=True)
    three.wait(60)
    assert three.status("map-new") == "stopped"
    with pytest.raises(Refusal):
        three.array.read("new")
    refused(three, "CMMVC5908E", "rmfcmap", "map-new")
    three.run("rmfcmap", "map-new", force=True)
    three.run("rmvdisk", "new")
    assert (three.letters("old"), three.letters("mid")) == (CONTENTS["old"], CONTENTS["mid"])


def test_stopping_by_force_loses_the_older_ones(three: Bench) -> None:
    three.run("stopfcmap", "map-new", force=True)
    assert three.status("map-mid") == three.status("map-old") == "stopped"
    with pytest.raises(Refusal):
        three.array.read("old")


def test_removing_a_vdisk_by_force_loses_the_older_ones(three: Bench) -> None:
    refused(three, "CMMVC5840E", "rmvdisk", "mid")
    three.run("rmvdisk", "mid", force=True)
    with pytest.raises(Refusal):
        three.array.read("old")
    assert three.letters("new") == CONTENTS["new"]


def test_a_volume_is_the_target_of_one_mapping(three: Bench) -> None:
    three.restore("old", rate=1)
    refused(three, "CMMVC5925E", "mkfcmap", source="new", target="volume")


def test_a_source_is_not_overwritten_without_the_restore_option(three: Bench) -> None:
    three.run("mkfcmap", source="old", target="volume", name="back")
    refused(three, "CMMVC6295E", "startfcmap", "back", prep=True)


def test_one_restore_at_a_time_among_linked_mappings(three: Bench) -> None:
    three.restore("old", rate=1)
    three.run("mkvdisk", name="other", size=SIZE, unit="b", mdiskgrp="pool0")
    three.run("mkfcmap", source="mid", target="other", name="second")
    refused(three, "CMMVC6296E", "startfcmap", "second", prep=True, restore=True)


def test_another_size_is_refused(bench: Bench) -> None:
    bench.snapshot("old")
    bench.array.resize("volume", 2 * SIZE)
    refused(bench, "CMMVC5924E", "mkfcmap", source="old", target="volume")


def test_a_reverse_mapping_can_be_made_to_linger(three: Bench) -> None:
    three.array.behaviour.linger = True
    three.restore("old")
    three.wait(10)
    assert (three.status("back"), three.run("lsfcmapprogress", "back")["progress"]) == ("copying", "100")
    three.run("stopfcmap", "back", split=True)
    assert "back" not in {one.name for one in three.array.mappings.values()}
    assert {name: three.letters(name) for name in CONTENTS} == CONTENTS


def test_a_group_cuts_its_volumes_at_one_instant(bench: Bench) -> None:
    bench.array.add_vdisk("second", SIZE)
    bench.run("mkfcconsistgrp", name="group")
    for source in ("volume", "second"):
        bench.run("mkvdisk", name=f"{source}-copy", size=SIZE, unit="b", mdiskgrp="pool0")
        bench.run("mkfcmap", source=source, target=f"{source}-copy", consistgrp="group", copyrate=0)
    refused(bench, "CMMVC5906E", "startfcconsistgrp", "group")
    bench.run("prestartfcconsistgrp", "group")
    assert bench.run("lsfcconsistgrp", "group")["status"] == "preparing"
    bench.wait(1)
    assert bench.run("lsfcconsistgrp", "group")["status"] == "prepared"
    bench.write("a")
    bench.run("startfcconsistgrp", "group")
    bench.write("b")
    assert bench.letters("volume-copy") == "a---"
    refused(bench, "CMMVC5902E", "stopfcmap", "fcmap0")
    refused(bench, "CMMVC5905E", "rmfcconsistgrp", "group")
    bench.run("rmfcconsistgrp", "group", force=True)
    assert bench.run("lsfcmap", "fcmap0")["group_name"] == ""
    assert bench.status("fcmap0") == "copying"


def test_limits_are_refused() -> None:
    bench = Bench()
    bench.array.limits = Limits(groups=1, mappings_of_a_source=1, pool_capacity=3 * SIZE)
    bench.run("mkfcconsistgrp", name="one")
    refused(bench, "CMMVC5900E", "mkfcconsistgrp", name="two")
    bench.snapshot("old")
    bench.run("mkvdisk", name="next", size=SIZE, unit="b", mdiskgrp="pool0")
    refused(bench, "CMMVC6424E", "mkfcmap", source="volume", target="next")
    refused(bench, "CMMVC8710E", "mkvdisk", name="more", size=SIZE, unit="b", mdiskgrp="pool0")
    refused(bench, "CMMVC6527E", "mkfcconsistgrp", name="longer-than-fifteen")


def test_snapshots_of_volumes_need_their_code_level(bench: Bench) -> None:
    bench.array.behaviour.code_level = "8.4.2.0 (build 1)"
    refused(bench, "CMMVC7205E", "addsnapshot", name="s", volumes="volume")
    bench.array.behaviour.code_level = "8.6.2.0 (build 1)"
    bench.write("a")
    number = bench.run("addsnapshot", name="s", volumes="volume")["id"]
    bench.write("b")
    assert bench.run("lsfcmap") == []
    assert len(bench.run("lsfcmap", showhidden=True)) == 1
    bench.run("restorefromsnapshot", snapshotid=number, volumes="volume")
    assert bench.letters("volume") == "a---"
    bench.wait(1)
    bench.run("rmsnapshot", snapshotid=number)
    bench.wait(1)
    assert bench.run("lsvolumesnapshot") == []
    assert [*bench.array.vdisks] == ["volume"]
