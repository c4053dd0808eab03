"""The paths and the actions of the API, each named once: routes, lanes, policies and the clouds' filters stand on it.

Filters run inside of Nova and Cinder, so that nothing but the standard library is needed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Addition:
    """What an API of the cloud lacks: all at and below a path, or with `actions` only those, of the path's own."""

    path: str
    actions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Api:
    """One of the cloud's two APIs: the folder that it has here, and the version that is spoken."""

    folder: str
    version: str
    additions: tuple[Addition, ...]

    def template(self, path: str) -> str:
        """A path below a project, in the form that documents show."""
        return f"{self.folder}{self.version}/{{project_id}}{path}"

    @property
    def root(self) -> str:
        """A regular expression, with no group, for where the API is served."""
        return f"(?:{self.folder})?{re.escape(self.version)}"

    def pattern(self, path: str) -> str:
        """A regular expression, with no group, for all forms of a path below it: see `forms`."""
        return self.root + behind_version(path)


def forms(template: str) -> Iterator[str]:
    """Every path that a template is served at: with and without its folder, and with and without the project."""
    for api in (NOVA, CINDER):
        if template.startswith(api.folder + api.version):
            yield from _without_project(template.removeprefix(api.folder))
    yield from _without_project(template)


def _without_project(template: str) -> Iterator[str]:
    yield template
    if "{project_id}" in template:
        yield template.replace("/{project_id}", "", 1)


def behind_version(path: str) -> str:
    """A regular expression, with no group, for what stands behind an API's version, with and without the project."""
    return "(?:/[^/]+)?" + re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))


VM_SNAPSHOT: Final = "vm-snapshot"
VM_RESTORE: Final = "vm-restore"
COPY_PROGRESS: Final = "copy-progress"

SERVERS: Final = "/servers"
SERVERS_DETAIL: Final = f"{SERVERS}/detail"
SERVER: Final = f"{SERVERS}/{{server_id}}"
SERVER_ACTION: Final = f"{SERVER}/action"

VOLUMES: Final = "/volumes"
VOLUMES_DETAIL: Final = f"{VOLUMES}/detail"
VOLUME: Final = f"{VOLUMES}/{{volume_id}}"
VOLUME_ACTION: Final = f"{VOLUME}/action"
ATTACHMENTS: Final = f"{SERVER}/os-volume_attachments"
ATTACHMENT: Final = f"{ATTACHMENTS}/{{volume_id}}"
VOLUME_SNAPSHOTS: Final = "/snapshots"
VOLUME_SNAPSHOTS_DETAIL: Final = f"{VOLUME_SNAPSHOTS}/detail"
VOLUME_SNAPSHOT: Final = f"{VOLUME_SNAPSHOTS}/{{snapshot_id}}"
SNAPSHOTS: Final = "/instance-snapshots"
SNAPSHOT: Final = f"{SNAPSHOTS}/{{id}}"
PROGRESS: Final = f"{SNAPSHOTS}/get_progress"
SERVICES: Final = "/os-services"

NOVA: Final = Api("/compute", "/v2.1", (Addition(SERVER_ACTION, (VM_SNAPSHOT, VM_RESTORE)),))
CINDER: Final = Api("/volume", "/v3", (Addition(SNAPSHOTS), Addition(VOLUME_ACTION, (COPY_PROGRESS,))))
