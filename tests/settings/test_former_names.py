"""Names in the settings that were others in an earlier release: they still do, and a warning says the present one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from stillframe.domain.errors import InvalidInput
from stillframe.drivers.openstack import options as openstack
from stillframe.drivers.qemu import options
from stillframe.settings import load
from tests.releases import register

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, text: str) -> list[str]:
    file = folder / "stillframe.conf"
    file.write_text(f"[DEFAULT]\nstate_dir = {folder}/state\n{text}")
    return [str(file)]


def test_drivers_by_their_former_name_are_the_present_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen = load(write(tmp_path, "[drivers]\ncompute = local\nstorage = local, memory\n")).drivers
    assert (chosen.compute, chosen.storage) == ("qemu", ("files", "memory"))
    assert caplog.messages == [
        "compute = local in [drivers] is deprecated; its name is qemu now",
        "storage = local in [drivers] is deprecated; its name is files now",
    ]


def test_a_driver_by_both_of_its_names_is_named_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'files' is named twice"):
        load(write(tmp_path, "[drivers]\nstorage = local, files\n"))


def test_a_section_by_its_former_name_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = load(write(tmp_path, f"[local]\ninstances_dir = {tmp_path}/there\n"))
    assert options.read(settings).instances == tmp_path / "there"
    assert 'Use option "instances_dir" from group "qemu"' in caplog.text


def test_a_section_by_its_former_name_is_spelt_right_too(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"no option instance_dir in \[local\].*; did you mean instances_dir\?"):
        load(write(tmp_path, "[local]\ninstance_dir = x\n"))


def test_a_variable_by_its_former_name_is_read_unless_there_is_the_present_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write(tmp_path, f"[qemu]\ninstances_dir = {tmp_path}/file\n")
    monkeypatch.setenv("OS_LOCAL__INSTANCES_DIR", str(tmp_path / "former"))
    assert options.read(load(files)).instances == tmp_path / "former"
    assert caplog.messages == ["OS_LOCAL__INSTANCES_DIR is deprecated; its name is OS_QEMU__INSTANCES_DIR now"]
    monkeypatch.setenv("OS_QEMU__INSTANCES_DIR", str(tmp_path / "present"))
    assert options.read(load(files)).instances == tmp_path / "present"


def test_an_option_by_its_former_name_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    former = "patience = 1\nrevert_patience = 2\nserver_patience = 3\n"
    chosen = openstack.read(load(write(tmp_path, f"[openstack]\n{former}")))
    assert (chosen.snapshot_timeout, chosen.revert_timeout, chosen.server_timeout) == (1, 2, 3)
    for name in ("patience", "revert_patience", "server_patience"):
        assert f'Option "{name}" from group "openstack" is deprecated' in caplog.text


def test_an_option_by_its_former_name_gives_way_to_the_present_one(tmp_path: Path) -> None:
    chosen = openstack.read(load(write(tmp_path, "[openstack]\npatience = 1\nsnapshot_timeout = 2\n")))
    assert chosen.snapshot_timeout == 2


def test_an_option_by_its_former_name_is_checked_and_its_variable_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="patience"):
        load(write(tmp_path, "[openstack]\npatience = long\n"))
    monkeypatch.setenv("OS_OPENSTACK__REVERT_PATIENCE", "7")
    assert openstack.read(load(write(tmp_path, ""))).revert_timeout == 7


def test_what_the_drivers_keep_stays_where_it_was(tmp_path: Path) -> None:
    settings = load(write(tmp_path, ""))
    assert options.read(settings).state == tmp_path / "state" / "local"


def test_an_update_that_was_not_installed_is_told_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(tmp_path, {"stillframe.drivers": {"local": "stillframe.drivers.local.platform:LocalPlatform"}})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        InvalidInput, match=r"'local' of stillframe .* install the package again, in a checkout by 'make"
    ):
        load(write(tmp_path, ""))
