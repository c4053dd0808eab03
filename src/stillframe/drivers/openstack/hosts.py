"""Whether the compute host of a server does what it is asked for, seen before it is asked for anything.

What Nova hands to a nova-compute that is dead stays in its queue, and nothing takes it out again: a stop would switch
the guest off whenever nova-compute comes back, however long ago it was undone here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from stillframe.domain.errors import Conflict
from stillframe.drivers.openstack import documents
from stillframe.drivers.openstack.cloud import Cloud

LOG = logging.getLogger(__name__)

_UP: Final = "UP"
# By these Nova says that it has not heard of it for a while, or that somebody has forced it down.
_DEAD: Final = ("UNKNOWN", "DOWN")
# A nova-compute that is well answers at once; Nova notices one that is not after a minute, by its defaults.
_ANSWER_SECONDS: Final = 10.0


class Diagnosis(StrEnum):
    """What a host tells: of a guest that it can or cannot diagnose it answers."""

    NO_ANSWER = "no answer"
    NOT_RUNNING = "not running"
    ANSWERS = "answers"


_DIAGNOSES: Final[Mapping[int | None, Diagnosis]] = {None: Diagnosis.NO_ANSWER, 409: Diagnosis.NOT_RUNNING}


class Hosts:
    """The compute hosts of a cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    def require(self, server: Mapping[str, Any]) -> None:
        """Raises `Conflict` unless the nova-compute of a server's host answers."""
        obstacle = self.obstacle(server)
        if obstacle is None:
            return
        refusal = Conflict(
            f"Server {server['id']} cannot be switched: the nova-compute of its host {obstacle}. What it is asked for "
            "would be queued and done whenever it is back. Have the operator start nova-compute there, or evacuate the "
            "server, and ask again."
        )
        refusal.detail = f"compute host {_host(server)}"
        raise refusal

    def obstacle(self, server: Mapping[str, Any]) -> str | None:
        """What is wrong with the nova-compute of a server's host, in words that go on after its name; None: nothing."""
        host = _host(server)
        if not host:
            return None
        found = "is down" if self._is_down(server, host) else None
        if found is None and self.diagnose(str(server["id"])) is Diagnosis.NO_ANSWER:
            found = "does not answer"
        if found is not None:
            LOG.warning("server %s: nova-compute of %s %s", server["id"], host, found)
        return found

    def _is_down(self, server: Mapping[str, Any], host: str) -> bool:
        told = server.get("host_status")
        if told in (_UP, *_DEAD):
            return told in _DEAD
        # Not shown to us, or switched off for new servers, which says nothing about the ones that it has.
        query = {"binary": "nova-compute", "host": host}
        found = self._cloud.service("compute").get("/os-services", documents.SERVICES, **query)
        return any(one["state"] != "up" for one in found)

    def diagnose(self, server_id: str) -> Diagnosis:
        """What a server's host tells of its guest, whatever Nova has on record."""
        # Asked for what changes nothing and what nobody but its host can tell; it tells of running guests only.
        status = self._cloud.service("compute").probe(f"/servers/{server_id}/diagnostics", _ANSWER_SECONDS)
        return _DIAGNOSES.get(status, Diagnosis.ANSWERS)


def _host(server: Mapping[str, Any]) -> str:
    return server.get("OS-EXT-SRV-ATTR:host") or ""
