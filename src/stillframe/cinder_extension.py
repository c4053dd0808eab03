"""An extension of Cinder's API: a volume goes back to any of its snapshots, also while it is attached.

Cinder's own `revert` takes only a volume's newest snapshot and only a volume that is `available`. Both are conditions
of its API alone; the volume manager and the drivers know neither. This is loaded by Cinder, and needs nothing of
Stillframe's.
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import webob.exc  # type: ignore[import-untyped]
from cinder import exception, objects, policies
from cinder.api import extensions, validation
from cinder.api.openstack import wsgi
from cinder.objects import fields
from cinder.volume import rpcapi
from oslo_config import cfg
from oslo_policy import policy

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG = logging.getLogger(__name__)

RULE: Final = policy.DocumentedRuleDefault(
    name="volume_extension:stillframe_revert",
    check_str="role:admin or role:service",
    description="Put a volume back to any of its snapshots, whether it is attached or not.",
    operations=[{"method": "POST", "path": "/volumes/{volume_id}/action (stillframe-revert)"}],
)
_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "stillframe-revert": {
            "type": "object",
            "properties": {"snapshot_id": {"type": "string", "format": "uuid"}},
            "required": ["snapshot_id"],
            "additionalProperties": False,
        }
    },
    "required": ["stillframe-revert"],
    "additionalProperties": False,
}
_REVERTING: Final = "reverting"
_FROM: Final = ("in-use", "available", "error")
# A revert that was cut off leaves `restoring`; while one is going on, the volume is `reverting`.
_SNAPSHOT_FROM: Final = (fields.SnapshotStatus.AVAILABLE, fields.SnapshotStatus.RESTORING)


class RevertController(wsgi.Controller):
    """The volume action `stillframe-revert`, with the body `{"stillframe-revert": {"snapshot_id": id}}`."""

    def __init__(self) -> None:
        super().__init__()
        self._volumes = rpcapi.VolumeAPI()
        # Cinder's own enforcer is private; this one reads the same files, which may refer to the same rules.
        self._enforcer = policy.Enforcer(cfg.CONF, fallback_to_json_file=False)
        self._enforcer.suppress_deprecation_warnings = True
        self._enforcer.register_defaults([*policies.list_rules(), RULE])

    @wsgi.response(HTTPStatus.ACCEPTED)
    @wsgi.action("stillframe-revert")
    @validation.schema(_SCHEMA)
    def revert(self, req: Any, id: str, body: dict[str, Any]) -> None:  # noqa: A002  # Cinder passes it by this name
        """Set the volume `reverting` and its snapshot `restoring`, and let the volume's manager revert it."""
        caller = req.environ["cinder.context"]
        denied = exception.PolicyNotAuthorized
        self._enforcer.enforce(RULE.name, {}, caller, do_raise=True, exc=denied, action=RULE.name)
        # The snapshot may be of another project than the volume, and both of another than the caller.
        context = caller.elevated()
        volume = objects.Volume.get_by_id(context, id)
        snapshot = objects.Snapshot.get_by_id(context, body["stillframe-revert"]["snapshot_id"])
        if snapshot.volume_id != volume.id:
            raise webob.exc.HTTPBadRequest(explanation=f"Snapshot {snapshot.id} is not one of volume {volume.id}.")
        if snapshot.volume_size != volume.size:
            raise webob.exc.HTTPBadRequest(
                explanation=f"Volume {volume.id} has not the size of its snapshot {snapshot.id}."
            )
        LOG.info("reverting volume %s to snapshot %s", volume.id, snapshot.id)
        _claim(volume, snapshot)
        # If this fails, nobody can tell whether the manager got it: the volume stays `reverting`, out of reach.
        self._volumes.revert_to_snapshot(context, volume, snapshot)


def _claim(volume: Any, snapshot: Any) -> None:
    before = volume.status
    if before not in _FROM or not volume.update_single_status_where(_REVERTING, before):
        raise _conflict("Volume", volume.id, _FROM)
    if not snapshot.update_single_status_where(fields.SnapshotStatus.RESTORING, _SNAPSHOT_FROM):
        volume.update_single_status_where(before, _REVERTING)
        raise _conflict("Snapshot", snapshot.id, _SNAPSHOT_FROM)


def _conflict(what: str, which: str, statuses: Sequence[str]) -> webob.exc.HTTPConflict:
    return webob.exc.HTTPConflict(explanation=f"{what} {which} must be {' or '.join(statuses)} to be reverted.")


class StillframeRevert(extensions.ExtensionDescriptor):
    """Put a volume back to any of its snapshots, whether it is attached or not."""

    name = "StillframeRevert"
    alias = "stillframe-revert"
    updated = "2026-11-23T00:00:00+00:00"

    def get_controller_extensions(self) -> list[Any]:
        return [extensions.ControllerExtension(self, "volumes", RevertController())]
