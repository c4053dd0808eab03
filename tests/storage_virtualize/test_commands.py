"""The command line and the settings, for volumes on an array."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillframe.domain.errors import InvalidInput
from stillframe.drivers.registry import open_drivers
from stillframe.drivers.storage_virtualize import options
from stillframe.settings import load
from tests.cli.program import Place
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import GRAIN
from tests.lab.storage_virtualize.server import PASSWORD, USER, SimulatedArray, simulated


@pytest.fixture
def served(tmp_path: Path) -> Iterator[SimulatedArray]:
    with simulated(tmp_path, Array()) as served:
        served.array.add_vdisk("web_root", GRAIN)
        yield served


@pytest.fixture
def place(tmp_path: Path, served: SimulatedArray) -> Place:
    made = Place(tmp_path)
    configure(made, served)
    return made


def configure(place: Place, served: SimulatedArray, **changed: str) -> None:
    options: dict[str, Any] = {
        "drivers__storage": "storage_virtualize",
        "storage_virtualize__arrays": "a",
        "array:a__endpoint": served.endpoint,
        "array:a__username": USER,
        "array:a__password": PASSWORD,
        "array:a__ca_file": str(served.ca_file),
    }
    place.configure(**{**options, **changed})


def looked_at(place: Place) -> dict[str, tuple[str, str]]:
    found = place.run("doctor", "-f", "json").document
    return {one["check"]: (one["result"], one["detail"]) for one in found}


def test_an_instance_with_vdisks_is_declared_once(place: Place) -> None:
    socket = str(place.folder / "qmp")
    wanted = ("--vdisk", "web_root,name=root,array=a", "--qmp-socket", socket)
    added = place.good("instance", "add", "web", *wanted, "-f", "json").document
    assert [*added["volumes"]] == ["root"]
    assert 'vdisk = "web_root"' in Path(added["file"]).read_text()
    again = place.run("instance", "add", "other", *wanted)
    assert "belongs to instance 'web' already" in again.err
    assert place.run("instance", "add", "blind", "--vdisk", "other").code == 4
    assert place.run("instance", "add", "empty").code == 4


def test_the_doctor_looks_at_arrays_and_at_what_is_declared_on_them(place: Place, served: SimulatedArray) -> None:
    socket = str(place.folder / "qmp")
    place.good("instance", "add", "web", "--vdisk", "web_root", "--vdisk", "lost", "--qmp-socket", socket)
    found = looked_at(place)
    assert found["array a"] == ("ok", f"array at code level {served.array.behaviour.code_level}")
    assert found["volume web-disk1"][0] == "fail"
    assert "volume web-disk0" not in found
    configure(place, served, **{"array:a__password": "wrong"})
    found = looked_at(place)
    assert found["array a"][0] == "fail"
    assert "does not accept the credentials" in found["array a"][1]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"array:a__endpoint": ""}, "endpoint"),
        ({"array:a__endpoint": "http://plain.example.org"}, "endpoint"),
        ({"array:a__password": ""}, "either password or password_file"),
        ({"array:a__password_file": "/etc/secret"}, "either password or password_file"),
        ({"storage_virtualize__volume_name_template": "volume"}, "volume_name_template"),
        ({"storage_virtualize__copy_rate": "151"}, "copy_rate"),
        ({"storage_virtualize__arrays": ""}, "arrays"),
        ({"drivers__compute": "storage_virtualize"}, "no compute driver '.*'; there are: memory, nova, qemu"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    place: Place, served: SimulatedArray, changed: dict[str, str], told: str
) -> None:
    configure(place, served, **changed)
    with pytest.raises(InvalidInput, match=told):
        open_drivers(load([str(place.config)]))


def test_a_password_is_not_among_what_is_shown_of_the_settings(place: Place) -> None:
    assert PASSWORD not in repr(options.read(load([str(place.config)])))
