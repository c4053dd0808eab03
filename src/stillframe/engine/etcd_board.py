"""TaskFlow's job board on etcd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import etcd3gw
from taskflow.jobs.backends.impl_etcd import EtcdJobBoard

from stillframe.engine.board import JobBoardOptions, given


class EtcdPosts(EtcdJobBoard):  # type: ignore[misc]  # untyped library
    """See `stillframe.engine.job_board.Posts`.

    The stock board keeps a copy of the jobs by a watch. A watch that the server ends is never opened again and leaves
    threads that keep the process from ending, so this one does without and reads what it needs.
    """

    def connect(self) -> None:
        conf = {key: kind(self._conf[key]) for key, kind in self.ETCD_CONFIG_OPTIONS if key in self._conf}
        self._client = etcd3gw.Etcd3Client(**conf)
        self._state = self.CONNECTED_STATE

    def listed(self) -> Sequence[Any]:
        self._ensure_fresh()
        return sorted(self._job_cache.values())

    def prolong(self, job: Any, who: str, expiry: int) -> bool:  # noqa: ARG002  # the lease knows its own
        # The stock job keeps the lease that it saw first, and breaks where the claim has run out.
        held = self.get_owner_data(job)
        if held is None or held["owner"] != who:
            return False
        return int(etcd3gw.Lease(id=held["lease_id"], client=self._client).refresh()) > 0

    def posted(self) -> int:
        return int(self.get_one(self._create_path(self._root_path, self.SEQUENCE_KEY)) or 0)


def connect(options: JobBoardOptions) -> EtcdPosts:
    """A board that connects with its first request; raises what the libraries raise."""
    conf = {
        "host": options.host,
        "port": options.port or 2379,
        "path": options.namespace,
        "protocol": "https" if options.tls else "http",
        "ca_cert": options.ca_file,
        "cert_cert": options.cert_file,
        "cert_key": options.key_file,
        "timeout": options.timeout,
    }
    board = EtcdPosts(options.namespace, given(conf))
    board.connect()
    return board
