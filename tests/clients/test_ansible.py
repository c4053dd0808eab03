"""IBM's own Ansible modules for PowerVC, played against the service with a real Keystone in front.

They know the service by nothing but the catalog. They were last played as they are in commit 3f54a0c.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from stillframe.domain.instance import PowerState
from tests.api.identity import PASSWORD, Identity, keystone
from tests.api.running import Running, running
from tests.api.test_keystone import configured

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from stillframe.domain.instance import Instance

COLLECTION: Final = os.environ.get("STILLFRAME_POWERVC_COLLECTION", "")
PYTHON: Final = os.environ.get("STILLFRAME_ANSIBLE_PYTHON", "")
pytestmark = pytest.mark.skipif(
    not (COLLECTION and PYTHON),
    reason="needs STILLFRAME_POWERVC_COLLECTION, a clone of https://github.com/IBM/ansible-powervc, and"
    " STILLFRAME_ANSIBLE_PYTHON, the python of a virtualenv with `pip install ansible 'openstacksdk<4.15' requests`",
)

PAGE: Final = Path(__file__).resolve().parents[2] / "docs/how-to/use-ansible.md"
PATIENCE: Final = 900.0
MODULE: Final = "ibm.powervc.snapshot_vm"

#: What is wrong in the collection: the file, the text in it, and what it should be.
MENDED: Final = (
    (
        "plugins/module_utils/crud_snapshot.py",
        "get_endpoint_url_by_service_name(connectn, ",
        "get_endpoint_url_by_service_name(mod, connectn, ",
    ),
    ("plugins/modules/snapshot_vm.py", "print(\"Volume Details\",volume['type'],volume['name'])", "pass"),
    ("plugins/module_utils/crud_snapshot.py", 'if volume["name"] and', 'if volume.get("name") and'),
)


@dataclass(frozen=True)
class Ansible:
    """Plays with one copy of the collection, in a folder of its own."""

    folder: Path
    auth_url: str

    def auth(self, user: str, project: str) -> dict[str, str]:
        domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
        return {"auth_url": self.auth_url, "username": user, "password": PASSWORD, "project_name": project, **domains}

    def results(self, module: str, tasks: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Play a module once with each of the arguments, and return what it answers, failures too."""
        file = self.folder / "results.json"
        played = [
            {module: arguments, "register": f"task_{number}", "ignore_errors": True}
            for number, arguments in enumerate(tasks)
        ]
        names = ", ".join(f"task_{number}" for number in range(len(tasks)))
        kept = {
            "ansible.builtin.copy": {"content": f"{{{{ [{names}] | to_json }}}}", "dest": str(file), "mode": "0600"}
        }
        self.play(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": [*played, kept]}]))
        found: list[dict[str, Any]] = json.loads(file.read_text())
        return found

    def play(self, playbook: str, **variables: str) -> str:
        """Play a playbook to its end, and return what was printed."""
        (self.folder / "playbook.yaml").write_text(playbook)
        clouds = {"clouds": {"mycloud": {"auth": self.auth("ada", "crimson")}}}
        (self.folder / "clouds.yaml").write_text(json.dumps(clouds))
        command = [PYTHON, "-m", "ansible", "playbook", "playbook.yaml", "--extra-vars", json.dumps(variables)]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
        }
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Identity]:
    with keystone(tmp_path_factory.mktemp("keystone")) as service:
        service.add("mia", "blue", "member")
        service.add("ada", "crimson", "admin")
        yield service


@pytest.fixture(scope="module")
def guarded(identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("guarded")
    with running(folder, (None, "auth_strategy", "keystone"), config_files=[configured(folder, identity.url)]) as api:
        identity.serve("compute", f"{api.url}/compute/v2.1/%(tenant_id)s")
        identity.serve("volume", f"{api.url}/volume/v3/%(tenant_id)s")
        yield api


@pytest.fixture
def ansible(identity: Identity, tmp_path: Path) -> Ansible:
    shutil.copytree(COLLECTION, tmp_path / "ansible_collections/ibm/powervc")
    return Ansible(tmp_path, identity.url)


@pytest.fixture
def mended(ansible: Ansible) -> Ansible:
    for name, wrong, right in MENDED:
        file = ansible.folder / "ansible_collections/ibm/powervc" / name
        text = file.read_text()
        assert text.count(wrong) == 1, f"{name} has changed: look whether it is mended"
        file.write_text(text.replace(wrong, right))
    return ansible


def three_volumes(guarded: Running, identity: Identity) -> Instance:
    return guarded.world.add_instance(identity.projects["crimson"], f"vm-{os.urandom(4).hex()}", [4096] * 3)


def arguments(auth: Mapping[str, str], instance: Instance, volume: Mapping[str, object]) -> dict[str, object]:
    return {
        "auth": auth,
        "name": instance.name,
        "snapshot_name": "nightly",
        "snapshot_description": "by a playbook",
        "volume": volume,
        "validate_certs": False,
    }


def made(guarded: Running, identity: Identity, result: Mapping[str, Any]) -> dict[str, Any]:
    """The instance snapshot of a task that succeeded, at the end of its creation."""
    assert result["changed"], result
    said, _posted, reply = result["result"]
    assert said == "VM Snapshot is done"
    headers = {"X-Auth-Token": identity.token("ada", "crimson")}
    details = guarded.wait(reply["instance_snapshot"]["task_uri"], headers=headers)
    assert details["flow_details"] == {"InstSnapshotFlow": "SUCCESS"}
    path = f"/volume/v3/{identity.projects['crimson']}/instance-snapshots/{reply['instance_snapshot']['id']}"
    shown: dict[str, Any] = guarded.call("GET", path, headers=headers).json()["instance_snapshot"]
    return shown


def test_the_module_as_it_is_takes_snapshots_of_volumes_by_name(
    guarded: Running, identity: Identity, ansible: Ansible
) -> None:
    instance = three_volumes(guarded, identity)
    auth = ansible.auth("ada", "crimson")
    blue = guarded.world.add_instance(identity.projects["blue"], instance.name, [4096])
    before = guarded.everything()
    refused = ansible.results(
        MODULE,
        [
            arguments(auth, instance, {"type": "All", "name": []}),
            arguments(auth, instance, {"type": "Boot", "name": []}),
            arguments(auth, instance, {"type": "All"}),
            arguments(ansible.auth("mia", "blue"), blue, {"type": "Specific", "name": [f"{blue.name}-0"]}),
        ],
    )
    assert [one["failed"] for one in refused] == [True] * 4
    assert "missing 1 required positional argument: 'tenant_id'" in refused[0]["msg"]
    assert "missing 1 required positional argument: 'tenant_id'" in refused[1]["msg"]
    assert "'name'" in refused[2]["msg"]
    # Keystone shows its services to administrators only.
    assert "403" in refused[3]["msg"]
    assert guarded.everything() == before

    names = [f"{instance.name}-{number}" for number in (0, 2)]
    (taken,) = ansible.results(MODULE, [arguments(auth, instance, {"type": "Specific", "name": names})])
    shown = made(guarded, identity, taken)
    assert {*shown["snapshots"]} == {instance.volume_ids[0], instance.volume_ids[2]}
    assert (shown["name"], shown["description"], shown["status"]) == ("nightly", "by a playbook", "available")


def test_the_module_once_mended_takes_snapshots_of_all_volumes_and_of_those_booted_from(
    guarded: Running, identity: Identity, mended: Ansible
) -> None:
    auth = mended.auth("ada", "crimson")
    one, two, three = (three_volumes(guarded, identity) for _ in range(3))
    taken = mended.results(
        MODULE,
        [
            arguments(auth, one, {"type": "All"}),
            arguments(auth, two, {"type": "Boot"}),
            arguments(auth, three, {"type": "Specific", "name": [f"{three.name}-1"]}),
        ],
    )
    volumes = [{*made(guarded, identity, result)["snapshots"]} for result in taken]
    assert volumes == [{*one.volume_ids}, {two.volume_ids[0]}, {three.volume_ids[1]}]


def test_the_playbooks_of_the_documents_take_a_snapshot_and_restore_it(
    guarded: Running, identity: Identity, mended: Ansible
) -> None:
    instance = guarded.world.add_instance(identity.projects["crimson"], "web", [4096] * 2, PowerState.ACTIVE)
    take, restore = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    for volume_id in instance.volume_ids:
        guarded.world.write(volume_id, 0, b"before")
    mended.play(take)
    for volume_id in instance.volume_ids:
        guarded.world.write(volume_id, 0, b"after!")
    mended.play(restore, endpoint=guarded.url)
    assert [guarded.world.read(one, 0, 6) for one in instance.volume_ids] == [b"before"] * 2
    assert guarded.world.instances[instance.id].power_state is PowerState.ACTIVE
