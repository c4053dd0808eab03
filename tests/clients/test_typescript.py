"""A client in TypeScript, with the types that openapi-typescript makes of the document alone, plays the whole story."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from stillframe.domain.errors import BackendError
from stillframe.domain.instance import PowerState

if TYPE_CHECKING:
    from tests.api.running import Running

HERE: Final = Path(__file__).parent / "typescript"
NODE: Final = Path(sys.executable).with_name("node")
PATIENCE: Final = 300


@pytest.fixture(scope="module")
def client(api: Running, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the client, with the types that were made."""
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("package.json", "tsconfig.json", "story.ts"):
        shutil.copy(HERE / name, folder)
    (folder / "node_modules").symlink_to(HERE / "node_modules")
    (folder / "openapi.json").write_text(json.dumps(api.call("GET", "/openapi.json").json()))
    made = node(folder, "node_modules/openapi-typescript/bin/cli.js", "openapi.json", "--output", "openapi.d.ts")
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def node(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([NODE, *arguments], cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_story_is_type_checked_against_the_document(client: Path) -> None:
    checked = node(client, "node_modules/typescript/bin/tsc")
    assert checked.returncode == 0, checked.stdout
    story = (client / "story.ts").read_text()
    misspelt = story.replace("instance_snapshot_id: id, force", "instance_snapshot_id: id, forec")
    (client / "misspelt.ts").write_text(misspelt)
    settings = json.loads((client / "tsconfig.json").read_text())
    (client / "misspelt.json").write_text(json.dumps({**settings, "files": ["misspelt.ts"]}))
    refused = node(client, "node_modules/typescript/bin/tsc", "--project", "misspelt.json")
    assert (refused.returncode, "'forec' does not exist in type" in refused.stdout) == (2, True), refused.stdout


def test_the_story_is_played_to_its_end(client: Path, api: Running) -> None:
    instance = api.instance(power_state=PowerState.ACTIVE)
    broken = "restore", instance.volume_ids[1]
    api.faults.fail(broken[0], BackendError("broken by the test"), broken[1])
    command = [str(NODE), "story.ts", api.url, instance.project_id, instance.id]
    with subprocess.Popen(
        command, cwd=client, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as story:
        assert story.stdin is not None
        assert story.stdout is not None
        said = story.stdout.readline()
        api.faults.mend(*broken)
        out, err = story.communicate("go on\n", timeout=PATIENCE)
    assert (said, out, story.returncode) == ("mend\n", "done\n", 0), err
    assert api.world.instances[instance.id].power_state is PowerState.ACTIVE
