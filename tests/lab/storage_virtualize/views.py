"""What the array shows: rows of strings, with the columns that the command line has."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from tests.lab.storage_virtualize.array import Array
from tests.lab.storage_virtualize.objects import Group, Mapping, Refusal, Snapshot, Vdisk

Row = dict[str, str]

_UNITS = (("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10))


def vdisk_row(array: Array, vdisk: Vdisk, *, in_bytes: bool) -> Row:
    """One line of the concise `lsvdisk`."""
    involved = [one for one in array.mappings.values() if vdisk in (one.source, one.target) and not one.hidden]
    return {
        "id": str(vdisk.id),
        "name": vdisk.name,
        "IO_group_id": str(vdisk.iogrp),
        "IO_group_name": f"io_grp{vdisk.iogrp}",
        "status": "online" if vdisk.online else "offline",
        "mdisk_grp_id": "many" if vdisk.mirrored else "0",
        "mdisk_grp_name": "many" if vdisk.mirrored else vdisk.pool,
        "capacity": capacity(vdisk.size, in_bytes=in_bytes),
        "type": "many" if vdisk.mirrored else "striped",
        "FC_id": _one_or_many(involved, "id"),
        "FC_name": _one_or_many(involved, "name"),
        "RC_id": "0" if vdisk.remote_copy else "",
        "RC_name": vdisk.remote_copy,
        "vdisk_UID": vdisk.uid,
        "fc_map_count": str(len(involved)),
        "copy_count": "2" if vdisk.mirrored else "1",
        "RC_change": "no",
        "volume_group_id": "0" if vdisk.volume_group else "",
        "volume_group_name": vdisk.volume_group,
        "replication_mode": vdisk.replication_mode,
    }


def vdisk_details(array: Array, vdisk: Vdisk, *, in_bytes: bool) -> list[Row]:
    """The detailed `lsvdisk`: the vdisk, then each of its copies."""
    whole = {
        **vdisk_row(array, vdisk, in_bytes=in_bytes),
        "formatted": "yes",
        "cache": "readwrite",
    }
    pools = [f"{vdisk.pool}-mirror", vdisk.pool] if vdisk.mirrored else [vdisk.pool]
    copies = [
        {
            "copy_id": str(number),
            "status": "online",
            "primary": "yes" if pool == vdisk.pool else "no",
            "mdisk_grp_name": pool,
            "capacity": capacity(vdisk.size, in_bytes=in_bytes),
            "se_copy": "no",
        }
        for number, pool in enumerate(pools)
    ]
    return [whole, *copies]


def mapping_row(mapping: Mapping) -> Row:
    """One line of the concise `lsfcmap`."""
    return {
        "id": str(mapping.id),
        "name": mapping.name,
        "source_vdisk_id": str(mapping.source.id),
        "source_vdisk_name": mapping.source.name,
        "target_vdisk_id": str(mapping.target.id),
        "target_vdisk_name": mapping.target.name,
        "group_id": "" if mapping.group is None else str(mapping.group.id),
        "group_name": "" if mapping.group is None else mapping.group.name,
        "status": mapping.status,
        "progress": str(mapping.progress),
        "copy_rate": str(mapping.copy_rate),
        "clean_progress": "100",
        "incremental": "off",
        "partner_FC_id": "",
        "partner_FC_name": "",
        "restoring": "yes" if mapping.restoring else "no",
        "start_time": mapping.start_time,
        "rc_controlled": "yes" if mapping.rc_controlled else "no",
    }


def mapping_details(array: Array, mapping: Mapping) -> Row:
    """The detailed `lsfcmap`: all columns of one mapping."""
    return {
        **mapping_row(mapping),
        "clean_progress": str(array.clean_progress(mapping)),
        "dependent_mappings": str(len(array.dependents(mapping.target))),
        "autodelete": "on" if mapping.autodelete else "off",
        "clean_rate": str(mapping.clean_rate),
        "difference": str(mapping.progress),
        "grain_size": "64",
        "IO_group_id": str(mapping.target.iogrp),
        "IO_group_name": f"io_grp{mapping.target.iogrp}",
        "keep_target": "no",
        "type": "generic",
        "restore_progress": str(mapping.progress) if mapping.restoring else "0",
        "fc_controlled": "no",
        "owner_id": "",
        "owner_name": "",
        "owner_type": "none",
    }


def group_row(array: Array, group: Group) -> Row:
    """One line of `lsfcconsistgrp`; its status is the least settled one among its mappings."""
    members = {one.status for one in array.mappings.values() if one.group is group}
    order = ("stopping", "preparing", "stopped", "suspended", "prepared", "copying", "idle_or_copied")
    status = next((one for one in order if one in members), "empty")
    return {
        "id": str(group.id),
        "name": group.name,
        "status": status,
        "autodelete": "off",
        "start_time": group.start_time,
    }


def snapshot_rows(snapshot: Snapshot) -> list[Row]:
    """The lines of `lsvolumesnapshot`: one for each volume of a snapshot."""
    return [
        {
            "id": str(snapshot.id),
            "snapshot_id": str(snapshot.id),
            "snapshot_name": snapshot.name,
            "volume_id": str(one.source.id),
            "volume_name": one.source.name,
            "volume_size": str(one.target.size),
            "parent_uid": parent_uid(snapshot),
            "time": snapshot.created,
            "state": _snapshot_state(snapshot),
            "mdisk_grp_name": one.target.pool,
        }
        for one in snapshot.mappings
    ]


def parent_uid(snapshot: Snapshot) -> str:
    """What tells the volumes that a snapshot is of: the same for all snapshots of the same ones."""
    return str(1 + sum(1 << one.source.id for one in snapshot.mappings))


def snapshot_row(snapshot: Snapshot) -> Row:
    """One line of `lsvolumegroupsnapshot`."""
    return {
        "id": str(snapshot.id),
        "name": snapshot.name,
        "volume_group_id": "",
        "volume_group_name": "",
        "time": snapshot.created,
        "state": _snapshot_state(snapshot),
        "parent_uid": parent_uid(snapshot),
    }


def filtered(rows: Iterable[Row], parameters: dict[str, Any]) -> list[Row]:
    """The rows that -filtervalue leaves; every `column=value` of it has to hold, with `*` for anything."""
    wanted = str(parameters.get("filtervalue", ""))
    conditions = [one.partition("=") for one in wanted.split(":") if one]
    rows = list(rows)
    for column, _, _value in conditions:
        if rows and column not in rows[0]:
            raise Refusal("CMMVC5741E", f"The filter value {column} is not valid.")
    return [row for row in rows if all(fnmatchcase(row[column], value) for column, _, value in conditions)]


def capacity(size: int, *, in_bytes: bool) -> str:
    if in_bytes:
        return str(size)
    unit, factor = next(((unit, factor) for unit, factor in _UNITS if size >= factor), ("B", 1))
    return f"{size / factor:.2f}{unit}"


def _one_or_many(involved: list[Mapping], column: str) -> str:
    if not involved:
        return ""
    return str(getattr(involved[0], column)) if len(involved) == 1 else "many"


def _snapshot_state(snapshot: Snapshot) -> str:
    return "dependent_delete" if snapshot.deleting else "active"
