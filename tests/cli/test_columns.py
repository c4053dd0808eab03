"""What is printed is decided before anything is asked for or changed, and fits where it is printed."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from cliff.display import DisplayCommandBase

from stillframe.cli.commands import COMMANDS, ListedCommands
from stillframe.cli.exit_codes import CommandFailed, ExitCode
from stillframe.cli.main import Shell
from stillframe.cli.snapshot import COLUMNS, MORE_COLUMNS, keys

if TYPE_CHECKING:
    from tests.cli.program import Place

NOBODY = ("--os-endpoint", "http://127.0.0.1:9")
ARGUMENTS = {
    "doctor": ("--repair", "--yes"),
    "instance add": ("new", "--disk", "{disk},format=raw"),
    "instance show": ("i",),
    "snapshot create": ("s", "--instance", "i"),
    "snapshot progress": ("s",),
    "snapshot restore": ("s",),
    "snapshot retry": ("s",),
    "snapshot rollback": ("s",),
    "snapshot show": ("s",),
}
PRINTING = [name for name in COMMANDS if issubclass(ListedCommands().commands[name].load(), DisplayCommandBase)]


@pytest.fixture
def instance(served: Place) -> str:
    """The name of a new instance."""
    name = f"i{uuid.uuid4().hex[:8]}"
    served.instance(name, root=b"the root", data=b"the data")
    return name


@pytest.mark.parametrize("command", PRINTING)
def test_a_column_that_does_not_exist_is_refused_before_anything_happens(place: Place, command: str) -> None:
    shell, disk = Shell(), place.disk("d", b"")
    shell.options, _rest = shell.parser.parse_known_args(["--config-file", str(place.config), *NOBODY])
    typed = [one.format(disk=disk) for one in ARGUMENTS.get(command, ())]
    made = ListedCommands().commands[command].load()(shell, None)
    with pytest.raises(CommandFailed, match="there is no column 'nosuch'; there are: ") as caught:
        made.run(made.get_parser(command).parse_args([*typed, "-c", "nosuch"]))
    assert caught.value.code is ExitCode.USAGE
    assert not (place.folder / "state").exists()


def test_such_a_command_ends_as_one_that_was_typed_wrong(place: Place) -> None:
    refused = place.run("snapshot", "list", "-c", "nosuch")
    assert (refused.code, refused.out, len(refused.err.splitlines())) == (2, "", 1), refused


def test_an_accepted_request_is_a_success_whether_one_waits_or_not(served: Place, instance: str) -> None:
    create = ("snapshot", "create", "cron", "--instance", instance, "-f", "value", "-c", "status")
    at_once = served.run(*create, "--no-wait")
    assert (at_once.code, at_once.out in ("creating\n", "available\n")) == (0, True), at_once
    only = served.good("snapshot", "list", "--instance", instance, "-f", "value", "-c", "id").out.strip()
    served.good("snapshot", "progress", only, "--wait")
    restored = served.run("snapshot", "restore", only, "-f", "value", "-c", "STATUS")
    assert (restored.code, restored.out in ("restoring\n", "available\n")) == (0, True), restored
    served.good("snapshot", "progress", only, "--wait")
    waited = served.run("snapshot", "restore", only, "--wait", "-f", "value", "-c", "status")
    assert (waited.code, waited.out) == (0, "available\n"), waited


def test_a_name_that_the_output_cannot_show_is_no_failure(served: Place, instance: str) -> None:
    create = ("snapshot", "create", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", "--instance", instance)
    done = served.run(*create, "-f", "value", "-c", "name", PYTHONIOENCODING="ascii")
    assert (done.code, done.out) == (0, "caf\\xe9\n"), done


def test_the_columns_of_lists_are_told_by_the_service() -> None:
    assert set(COLUMNS + MORE_COLUMNS) <= set(keys())


def test_a_list_fits_a_terminal_and_breaks_no_id_or_time(served: Place, instance: str) -> None:
    name = f"{instance}-a-name-of-some-length"
    created = served.good("snapshot", "create", name, "--instance", instance, "--wait", "-f", "json").document
    code, shown = served.at_a_terminal("snapshot", "list", "--instance", instance, columns=80)
    assert code == 0
    assert max(map(len, shown.splitlines())) <= 80
    for whole in (created["id"], created["created_at"].partition(".")[0], "available"):
        assert whole in shown
    piped = served.good("snapshot", "list", "--instance", instance).out
    _head, line = piped.splitlines()
    assert line.split() == [created["id"], name, "available", created["created_at"].partition(".")[0]]


def test_a_snapshot_is_shown_without_breaking_what_one_copies(served: Place, instance: str) -> None:
    created = served.good("snapshot", "create", "s", "--instance", instance, "--wait", "-f", "json").document
    piped = served.good("snapshot", "show", created["id"]).out
    code, at_a_terminal = served.at_a_terminal("snapshot", "show", created["id"], columns=80)
    assert code == 0
    whole = [created["id"], created["created_at"], *created["snapshots"], *created["snapshots"].values()]
    for shown in (piped, at_a_terminal):
        assert [one for one in whole if one not in shown] == []
        assert max(map(len, shown.splitlines())) < 100
        assert "|" not in shown
