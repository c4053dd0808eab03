"""The commands of the simulated array: what they ask for, what they refuse, and what they answer."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from tests.lab.storage_virtualize import views
from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Group, Mapping, Refusal, Snapshot

Parameters = dict[str, Any]
Command = Callable[[Array, str | None, Parameters], Any]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9 ._-]{0,62}")
_GROUP_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,14}")
_GONE: Final = ("CMMVC5804E", "The action failed because an object that was specified in the command does not exist.")
_AT_REST: Final = ("stopped", "idle_or_copied")
_STATE: Final = (
    "CMMVC5903E",
    "The FlashCopy mapping was not changed because the mapping or consistency group is another state.",
)


def run(array: Array, command: str, subject: str | None, parameters: Parameters) -> Any:
    """Carry a command out; raises `Refusal`."""
    array.advance()
    if command not in COMMANDS:
        raise Refusal("CMMVC7205E", "The command failed because it is not supported.")
    if array.behaviour.role in ("Monitor", "Service") and not command.startswith("ls"):
        raise Refusal("CMMVC6253E", "The task has failed because the user's role is not authorized to submit it.")
    answer = COMMANDS[command](array, subject, parameters)
    array.advance()
    return answer


def _lssystem(array: Array, _subject: str | None, _parameters: Parameters) -> Any:
    return {"id": "000002042060460E", "name": array.name, "code_level": array.behaviour.code_level}


def _lscurrentuser(array: Array, _subject: str | None, _parameters: Parameters) -> Any:
    return [{"name": "stillframe"}, {"role": array.behaviour.role}, {"owner_id": ""}, {"owner_name": ""}]


def _lsmdiskgrp(array: Array, _subject: str | None, _parameters: Parameters) -> Any:
    free = array.limits.pool_capacity - array.used()
    return [{"id": "0", "name": "pool0", "status": "online", "free_capacity": str(free)}]


def _lsvdisk(array: Array, subject: str | None, parameters: Parameters) -> Any:
    in_bytes = bool(parameters.get("bytes"))
    if subject is not None:
        return views.vdisk_details(array, array.vdisk(subject), in_bytes=in_bytes)
    shown = [one for one in array.vdisks.values() if not one.hidden]
    return views.filtered((views.vdisk_row(array, one, in_bytes=in_bytes) for one in shown), parameters)


def _mkvdisk(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    name = _required(parameters, "name")
    _check_name(name, _NAME)
    if parameters.get("unit") != "b":
        raise Refusal("CMMVC5709E", "This simulation makes vdisks by the byte only.")
    vdisk = array.add_vdisk(name, int(_required(parameters, "size")), str(_required(parameters, "mdiskgrp")))
    vdisk.iogrp = int(parameters.get("iogrp", 0))
    return _made("Virtual Disk", vdisk.id)


def _rmvdisk(array: Array, subject: str | None, parameters: Parameters) -> None:
    array.remove_vdisk(array.vdisk(_subject(subject)), force=bool(parameters.get("force")))


def _mkfcconsistgrp(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    name = _required(parameters, "name")
    _check_name(name, _GROUP_NAME)
    if name in array.groups:
        raise Refusal("CMMVC6035E", "The action failed as the object already exists.")
    if len(array.groups) >= array.limits.groups:
        raise Refusal("CMMVC5900E", "The FlashCopy consistency group was not created because the maximum exists.")
    number = array.free_number(one.id for one in array.groups.values()) + 1
    array.groups[name] = Group(number, name)
    return _made("FlashCopy Consistency Group", number)


def _rmfcconsistgrp(array: Array, subject: str | None, parameters: Parameters) -> None:
    group = _group(array, subject)
    members = _members(array, group)
    if members and not parameters.get("force"):
        raise Refusal("CMMVC5905E", "The FlashCopy consistency group was not deleted because it contains mappings.")
    for one in members:
        one.group = None
    del array.groups[group.name]


def _lsfcconsistgrp(array: Array, subject: str | None, parameters: Parameters) -> Any:
    if subject is None:
        return views.filtered((views.group_row(array, one) for one in array.groups.values()), parameters)
    return views.group_row(array, _group(array, subject))


def _prestartfcconsistgrp(array: Array, subject: str | None, parameters: Parameters) -> None:
    _prepare_all(array, _some(_members(array, _group(array, subject))), restore=bool(parameters.get("restore")))


def _startfcconsistgrp(array: Array, subject: str | None, parameters: Parameters) -> None:
    group = _group(array, subject)
    _start_all(array, _some(_members(array, group)), parameters)
    group.start_time = array.stamp()


def _stopfcconsistgrp(array: Array, subject: str | None, parameters: Parameters) -> None:
    stoppable = [one for one in _members(array, _group(array, subject)) if one.status not in _AT_REST]
    if not stoppable:
        raise Refusal("CMMVC5912E", "The FlashCopy consistency group was not stopped because it is in another state.")
    for one in stoppable:
        array.stop(one, force=bool(parameters.get("force")), split=bool(parameters.get("split")))


def _mkfcmap(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    source, target = array.vdisk(_required(parameters, "source")), array.vdisk(_required(parameters, "target"))
    name = str(parameters.get("name", ""))
    if name:
        _check_name(name, _NAME)
    if source is target:
        raise Refusal("CMMVC6303E", "The create failed because the source and target VDisks are the same.")
    if source.size != target.size:
        raise Refusal(
            "CMMVC5924E",
            "The FlashCopy mapping was not created because the source and target virtual disks (VDisks) are different "
            "sizes.",
        )
    if name in {one.name for one in array.mappings.values()}:
        raise Refusal("CMMVC6035E", "The action failed as the object already exists.")
    if any(one.target is target for one in array.mappings.values()):
        raise Refusal("CMMVC5925E", "The FlashCopy mapping was not created because the target VDisk is one already.")
    sources = sum(one.source is source for one in array.mappings.values())
    if sources >= array.limits.mappings_of_a_source:
        raise Refusal("CMMVC6424E", "The FlashCopy mapping was not created because the source has the maximum of them.")
    group = array.groups.get(str(parameters.get("consistgrp", "")))
    if "consistgrp" in parameters and group is None:
        raise Refusal(*_GONE)
    made = array.new_mapping(name, source, target)
    made.group = group
    made.autodelete = bool(parameters.get("autodelete"))
    _set_rates(made, parameters)
    return _made("FlashCopy Mapping", made.id)


def _chfcmap(array: Array, subject: str | None, parameters: Parameters) -> None:
    mapping = _mapping(array, subject)
    _set_rates(mapping, parameters)
    if "autodelete" in parameters:
        mapping.autodelete = parameters["autodelete"] == "on"
    if "consistgrp" in parameters:
        raise Refusal(*_STATE)


def _rmfcmap(array: Array, subject: str | None, parameters: Parameters) -> None:
    array.remove_mapping(_mapping(array, subject), force=bool(parameters.get("force")))


def _prestartfcmap(array: Array, subject: str | None, parameters: Parameters) -> None:
    _prepare_all(array, [_alone(_mapping(array, subject))], restore=bool(parameters.get("restore")))


def _startfcmap(array: Array, subject: str | None, parameters: Parameters) -> None:
    _start_all(array, [_alone(_mapping(array, subject))], parameters)


def _stopfcmap(array: Array, subject: str | None, parameters: Parameters) -> None:
    mapping = _alone(_mapping(array, subject))
    array.stop(mapping, force=bool(parameters.get("force")), split=bool(parameters.get("split")))


def _lsfcmap(array: Array, subject: str | None, parameters: Parameters) -> Any:
    if subject is not None:
        return views.mapping_details(array, _mapping(array, subject, hidden=True))
    if parameters.get("showhidden"):
        _need_level(array, (8, 5, 1), "CMMVC5709E")
    shown = [one for one in array.mappings.values() if parameters.get("showhidden") or not one.hidden]
    return views.filtered(map(views.mapping_row, shown), parameters)


def _lsfcmapprogress(array: Array, subject: str | None, _parameters: Parameters) -> Any:
    mapping = _mapping(array, subject, hidden=True)
    return {"id": str(mapping.id), "progress": str(mapping.progress)}


def _lsfcmapdependentmaps(array: Array, subject: str | None, _parameters: Parameters) -> Any:
    return [_short(one) for one in array.dependents(_mapping(array, subject).target)]


def _lsvdiskdependentmaps(array: Array, subject: str | None, _parameters: Parameters) -> Any:
    vdisk = array.vdisk(_subject(subject))
    return [_short(one) for one in array.mappings.values() if one.source is vdisk and one.active]


def _lsvdiskfcmappings(array: Array, subject: str | None, _parameters: Parameters) -> Any:
    vdisk = array.vdisk(_subject(subject))
    involved = [one for one in array.mappings.values() if vdisk in (one.source, one.target) and not one.hidden]
    # IBM says "in no particular order"; this is one.
    return [_short(one, "id", "name") for one in sorted(involved, key=lambda one: (-one.id % 3, one.id))]


def _addsnapshot(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    _need_level(array, (8, 5, 1))
    name = _required(parameters, "name")
    _check_name(name, _NAME)
    if any(one.name == name for one in array.snapshots.values()):
        raise Refusal("CMMVC6035E", "The action failed as the object already exists.")
    volumes = [array.vdisk(one) for one in _required(parameters, "volumes").split(":")]
    legacy = [one for one in array.mappings.values() if not one.hidden]
    if any(one.target in volumes for one in legacy):
        raise Refusal("CMMVC9863E", "A snapshot cannot be made of a volume that is the target of a FlashCopy mapping.")
    if not parameters.get("ignorelegacy") and any(one.source in volumes for one in legacy):
        raise Refusal("CMMVC9862E", "A volume has legacy FlashCopy mappings; -ignorelegacy is required.")
    number = array.free_number(array.snapshots)
    snapshot = array.snapshots[number] = Snapshot(number, name, created=array.stamp())
    for volume in volumes:
        target = array.add_vdisk(f"snapshot{number}-{volume.id}", volume.size, volume.pool, hidden=True)
        mapping = array.new_mapping(f"snapshot{number}-{volume.id}", volume, target, hidden=True)
        mapping.copy_rate = 0
        snapshot.mappings.append(mapping)
        array.start(mapping)
    return {"id": str(number), "message": f"Snapshot, id [{number}], successfully created or triggered"}


def _restorefromsnapshot(array: Array, _subject: str | None, parameters: Parameters) -> None:
    _need_level(array, (8, 6, 2))
    snapshot = _snapshot(array, parameters)
    chosen = parameters.get("volumes")
    wanted = None if chosen is None else {array.vdisk(one) for one in str(chosen).split(":")}
    members = [one for one in snapshot.mappings if wanted is None or one.source in wanted]
    for one in members:
        if one.source.size != one.target.size:
            raise Refusal("CMMVC9864E", "The volume has another size than it had when the snapshot was made.")
        if any(other.target is one.source for other in array.mappings.values()):
            raise Refusal("CMMVC9865E", "The volume is the target of a FlashCopy mapping.")
    for one in members:
        back = array.new_mapping(f"restore{snapshot.id}-{one.source.id}", one.target, one.source, hidden=True)
        back.copy_rate, back.autodelete, back.restoring = 100, True, True
        snapshot.restores.append(back)
        array.start(back)


def _rmsnapshot(array: Array, _subject: str | None, parameters: Parameters) -> None:
    _snapshot(array, parameters).deleting = True


def _chsnapshot(array: Array, _subject: str | None, parameters: Parameters) -> None:
    name = _required(parameters, "name")
    _check_name(name, _NAME)
    if any(one.name == name for one in array.snapshots.values()):
        raise Refusal("CMMVC6035E", "The action failed as the object already exists.")
    _snapshot(array, parameters).name = name


def _lsvolumesnapshot(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    _need_level(array, (8, 5, 1))
    return views.filtered((row for one in array.snapshots.values() for row in views.snapshot_rows(one)), parameters)


def _lsvolumegroup(array: Array, subject: str | None, _parameters: Parameters) -> Any:
    if subject is None or not any(one.volume_group == subject for one in array.vdisks.values()):
        raise Refusal(*_GONE)
    return {"id": "0", "name": subject, "replication_policy_name": array.policies.get(subject, "")}


def _lsvolumegroupsnapshot(array: Array, _subject: str | None, parameters: Parameters) -> Any:
    _need_level(array, (8, 5, 1))
    return views.filtered(map(views.snapshot_row, array.snapshots.values()), parameters)


def _prepare_all(array: Array, mappings: list[Mapping], *, restore: bool) -> None:
    for one in mappings:
        if one.status not in ("idle_or_copied", "stopped"):
            raise Refusal(*_STATE)
        if not restore and array.is_source(one.target):
            raise Refusal(
                "CMMVC6295E", "The mapping was not prepared because its target is the source of an active mapping."
            )
        if restore and any(other.restoring for other in array.linked(one)):
            raise Refusal("CMMVC6296E", "A mapping that is linked to this one is restoring already.")
        if any(other.target is one.source and other.status == "stopped" for other in array.mappings.values()):
            raise Refusal("CMMVC5914E", "The FlashCopy mapping was not prepared because its source is offline.")
    for one in mappings:
        one.status, one.restoring = "preparing", restore
        one.prepared_at = array.clock() + array.behaviour.flush_seconds


def _start_all(array: Array, mappings: list[Mapping], parameters: Parameters) -> None:
    if parameters.get("prep"):
        _prepare_all(array, mappings, restore=bool(parameters.get("restore")))
    elif any(one.status != "prepared" for one in mappings):
        raise Refusal("CMMVC5906E", "The mapping or consistency group was not started because it is not prepared.")
    for one in mappings:
        one.restoring = one.restoring or bool(parameters.get("restore"))
        array.start(one)


def _set_rates(mapping: Mapping, parameters: Parameters) -> None:
    for option in ("copyrate", "cleanrate"):
        if not 0 <= int(parameters.get(option, 50)) <= 150:
            raise Refusal("CMMVC5716E", f"Non-numeric or out-of-range data was entered for -{option}.")
    mapping.copy_rate = int(parameters.get("copyrate", mapping.copy_rate))
    mapping.clean_rate = int(parameters.get("cleanrate", mapping.clean_rate))


def _need_level(array: Array, level: tuple[int, ...], code: str = "CMMVC7205E") -> None:
    have = tuple(int(part) for part in array.behaviour.code_level.split(" ")[0].split("."))
    if have < level:
        raise Refusal(code, "The command or a parameter is not supported.")


def _snapshot(array: Array, parameters: Parameters) -> Snapshot:
    if "snapshot" in parameters:
        named = (str(parameters["snapshot"]), str(_required(parameters, "parentuid")))
        found = [one for one in array.snapshots.values() if (one.name, views.parent_uid(one)) == named]
    elif not array.behaviour.snapshot_numbers:
        raise Refusal("CMMVC5709E", "The parameter -snapshotid is not supported.")
    else:
        found = [one for one in array.snapshots.values() if str(one.id) == str(parameters.get("snapshotid"))]
    if not found:
        raise Refusal(*_GONE)
    return found[0]


def _mapping(array: Array, key: str | None, *, hidden: bool = False) -> Mapping:
    wanted = _subject(key)
    for one in array.mappings.values():
        if wanted in (str(one.id), one.name) and (hidden or not one.hidden):
            return one
    raise Refusal(*_GONE)


def _group(array: Array, key: str | None) -> Group:
    wanted = _subject(key)
    for one in array.groups.values():
        if wanted in (str(one.id), one.name):
            return one
    raise Refusal(*_GONE)


def _members(array: Array, group: Group) -> list[Mapping]:
    return [one for one in array.mappings.values() if one.group is group]


def _some(members: list[Mapping]) -> list[Mapping]:
    if not members:
        raise Refusal("CMMVC5901E", "The FlashCopy consistency group is empty.")
    return members


def _alone(mapping: Mapping) -> Mapping:
    if mapping.group is not None:
        raise Refusal("CMMVC5902E", "The FlashCopy mapping is a member of a consistency group.")
    return mapping


def _short(mapping: Mapping, number: str = "fc_id", name: str = "fc_name") -> views.Row:
    return {number: str(mapping.id), name: mapping.name}


def _made(what: str, number: int) -> dict[str, str]:
    return {"id": str(number), "message": f"{what}, id [{number}], successfully created"}


def _required(parameters: Parameters, option: str) -> str:
    if option not in parameters:
        raise Refusal("CMMVC5707E", "Required parameters are missing.")
    return str(parameters[option])


def _subject(subject: str | None) -> str:
    if not subject:
        raise Refusal("CMMVC5701E", "No object ID was specified.")
    return subject


def _check_name(name: str, form: re.Pattern[str]) -> None:
    if not form.fullmatch(name):
        raise Refusal("CMMVC6527E", f"The name '{name}' that you have entered is not valid.")


COMMANDS: Final[dict[str, Command]] = {
    command.__name__[1:]: command
    for command in (
        _lssystem,
        _lscurrentuser,
        _lsmdiskgrp,
        _lsvdisk,
        _mkvdisk,
        _rmvdisk,
        _mkfcconsistgrp,
        _rmfcconsistgrp,
        _lsfcconsistgrp,
        _prestartfcconsistgrp,
        _startfcconsistgrp,
        _stopfcconsistgrp,
        _mkfcmap,
        _chfcmap,
        _rmfcmap,
        _prestartfcmap,
        _startfcmap,
        _stopfcmap,
        _lsfcmap,
        _lsfcmapprogress,
        _lsfcmapdependentmaps,
        _lsvdiskdependentmaps,
        _lsvdiskfcmappings,
        _addsnapshot,
        _restorefromsnapshot,
        _rmsnapshot,
        _chsnapshot,
        _lsvolumesnapshot,
        _lsvolumegroup,
        _lsvolumegroupsnapshot,
    )
}
