"""TaskFlow's job board on etcd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import etcd3gw
from taskflow.jobs.backends.impl_etcd import EtcdJob, EtcdJobBoard

from stillframe.engine import postings
from stillframe.engine.board import given
from stillframe.engine.internals import OpenEtcdBoard
from stillframe.foreign.session import Bounded, mount
from stillframe.settings.job_board import JobBoardOptions

_KEY: Final = re.compile(rb"(\d{1,18})\.data")
# Besides its data a job has a lock and a time.
_KEYS_A_JOB: Final = 3
_MOST_BYTES: Final = 32 << 20


class EtcdPosts(OpenEtcdBoard, EtcdJobBoard):  # type: ignore[misc]  # untyped library
    """See `stillframe.engine.job_board.Posts`.

    The stock board keeps a copy of the jobs by a watch. A watch that the server ends is never opened again and leaves
    threads that keep the process from ending, so this one does without and reads what it needs.
    """

    def connect(self) -> None:
        client = etcd3gw.Etcd3Client(**self.options())
        mount(client.session, Bounded(most_bytes=_MOST_BYTES))
        self.use(client)

    def listed(self) -> Sequence[Any]:
        # The stock board deletes whatever it cannot read, then raises.
        prefix = self.path_of(self.JOB_PREFIX)
        entries = self.server().get(prefix, metadata=True, range_end=_after(prefix), limit=_KEYS_A_JOB * postings.MOST)
        jobs = []
        for blob, told in entries:
            ours = _KEY.fullmatch(told["key"].removeprefix(prefix.encode()))
            found = postings.from_text(blob) if ours else None
            if ours and found and found["sequence"] == int(ours[1]):
                jobs.append(self._job(f"{prefix}{found['sequence']}", found))
        return sorted(jobs, key=lambda job: job.sequence)

    def get_owner_data(self, job: Any) -> dict[str, Any] | None:
        blob = self.get_one(job.key + self.LOCK_POSTFIX)
        return postings.owner_from_text(blob) if blob else None

    def get_owner_and_data(self, job: Any) -> tuple[str | None, bytes | None]:
        held = self.get_owner_data(job)
        return held["owner"] if held else None, self.get_data(job)

    def _job(self, key: str, found: postings.Posting) -> EtcdJob:
        return EtcdJob(self, found["name"], self.server(), key, uuid=found["uuid"], sequence=found["sequence"])

    def prolong(self, job: Any, who: str, expiry: int) -> bool:  # noqa: ARG002  # the lease knows its own
        # The stock job keeps the lease that it saw first, and breaks where the claim has run out.
        held = self.get_owner_data(job)
        if held is None or held["owner"] != who:
            return False
        return int(etcd3gw.Lease(id=held["lease_id"], client=self.server()).refresh()) > 0

    def posted(self) -> int:
        return int(self.get_one(self.path_of(self.SEQUENCE_KEY)) or 0)


def _after(prefix: str) -> str:
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


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
