"""TaskFlow's job boards, on Redis (or Valkey) and on etcd, as a `Board`."""

from __future__ import annotations

import logging
import math
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from threading import Event
from typing import Any, Final, Protocol

from taskflow import exceptions

from stillframe.engine.board import JobBoardOptions

LOG = logging.getLogger(__name__)

_POLL_EVERY: Final = 0.2
_TIDY_EVERY: Final = 30.0
_SILENCE: Final = 5.0
# Reading a long board takes long; a worker spends no more than this part of its time with it.
_SHARE: Final = 0.05
_SOME: Final = 500


class Posts(Protocol):
    """A connected job board of TaskFlow's, with what its interface lacks."""

    def post(self, name: str) -> Any: ...

    def claim(self, job: Any, who: str, expiry: int) -> None: ...

    def consume(self, job: Any, who: str) -> None: ...

    def abandon(self, job: Any, who: str) -> None: ...

    def listed(self) -> Sequence[Any]:
        """All jobs, in one request; TaskFlow's own iteration makes one more for the state of each."""
        ...

    def posted(self) -> int:
        """A number that grows with every post."""
        ...

    def close(self) -> None: ...


class JobBoard:
    """One job an operation, named by its id. See `Board`.

    Jobs are claimed with an expiry that is renewed while the work goes on, so that the board shows who works on what;
    who may, the store says. Jobs of operations that are final, or that were posted twice, are tidied away.
    """

    def __init__(
        self, options: JobBoardOptions, claim_seconds: float, open_among: Callable[[Collection[str]], set[str]]
    ) -> None:
        self._options = options
        self._expiry = math.ceil(claim_seconds)
        self._open_among = open_among
        self._who = f"stillframe-{uuid.uuid4()}"
        self._posts: Posts | None = None
        self._connecting = threading.Lock()
        self._silent_until = 0.0
        self._answers = True
        self._jobs: Mapping[str, list[Any]] = {}
        self._claimed: dict[str, Any] = {}
        self._reading = threading.Lock()
        self._read_at = self._reading_took = 0.0
        self._tidied_at = time.monotonic()
        self._posted = 0

    def announce(self, operation_id: str) -> None:
        """See `Board`."""
        self._try(lambda posts: posts.post(operation_id))

    def taken(self, operation_id: str) -> None:
        """See `Board`: the job is claimed, or posted again if it has got lost."""

        def claim(posts: Posts) -> None:
            if operation_id not in self._jobs:
                self._read(posts)
            jobs = self._jobs.get(operation_id) or [posts.post(operation_id)]
            posts.claim(jobs[0], self._who, self._expiry)
            self._claimed[operation_id] = jobs[0]

        self._try(claim)

    def renew(self, operation_ids: Collection[str]) -> None:
        """See `Board`."""
        for job in [self._claimed[one] for one in operation_ids if one in self._claimed]:
            self._try(partial(self._prolong, job))

    def put_back(self, operation_id: str) -> None:
        """See `Board`."""
        job = self._claimed.pop(operation_id, None)
        if job is not None:
            self._try(lambda posts: posts.abandon(job, self._who))

    def done(self, operation_id: str) -> None:
        """See `Board`."""
        job = self._claimed.pop(operation_id, None)
        if job is not None:
            self._try(lambda posts: posts.consume(job, self._who))

    def wait(self, wake: Event, seconds: float) -> None:
        """See `Board`."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and not wake.wait(_POLL_EVERY):
            if time.monotonic() - self._tidied_at > _TIDY_EVERY:
                self._tidied_at = time.monotonic()
                self._try(self._tidy)
            posted = self._try(lambda posts: posts.posted())
            if posted is not None and posted != self._posted:
                self._posted = posted
                return

    def close(self) -> None:
        """See `Board`."""
        with self._connecting:
            posts, self._posts = self._posts, None
        if posts is not None:
            posts.close()

    def _try(self, act: Callable[[Posts], Any]) -> Any:
        """What `act` returns, or None if the board does not answer; then it is left in peace for a while."""
        if time.monotonic() < self._silent_until:
            return None
        try:
            result = act(self._connected())
        except (exceptions.NotFound, exceptions.UnclaimableJob) as error:
            LOG.debug("the job board knows better: %s", error)
            return None
        except Exception as error:  # noqa: BLE001  # the libraries below raise what they like
            # Whatever it is, the database is asked instead.
            self._silent_until = time.monotonic() + _SILENCE
            if self._answers:
                LOG.warning("the job board does not answer, the database is asked instead: %s", error)
            self._answers = False
            self._drop()
            return None
        if not self._answers:
            LOG.info("the job board answers again")
        self._answers = True
        return result

    def _prolong(self, job: Any, _posts: Posts) -> None:
        job.extend_expiry(self._expiry)

    def _connected(self) -> Posts:
        with self._connecting:
            if self._posts is None:
                self._posts = _connect(self._options)
            return self._posts

    def _drop(self) -> None:
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # as above
            LOG.debug("the connection to the job board could not be ended: %s", error)

    def _read(self, posts: Posts) -> None:
        """Look at all jobs, unless that was done just now for how long it takes."""
        with self._reading:
            started = time.monotonic()
            if started - self._read_at < self._reading_took / _SHARE:
                return
            jobs: dict[str, list[Any]] = defaultdict(list)
            for job in posts.listed():
                jobs[job.name].append(job)
            self._jobs = dict(jobs)
            self._read_at = time.monotonic()
            self._reading_took = self._read_at - started

    def _tidy(self, posts: Posts) -> None:
        """Take jobs away whose operations are final, and the second of two."""
        self._read(posts)
        names = list(self._jobs)
        for start in range(0, len(names), _SOME):
            some = names[start : start + _SOME]
            still_open = self._open_among(some)
            for name in some:
                for job in self._jobs[name][1:] if name in still_open else self._jobs[name]:
                    self._take_away(posts, job)

    def _take_away(self, posts: Posts, job: Any) -> None:
        try:
            posts.claim(job, self._who, self._expiry)
            posts.consume(job, self._who)
        except (exceptions.NotFound, exceptions.UnclaimableJob, exceptions.JobFailure) as error:
            LOG.debug("another worker has job %s: %s", job.name, error)


def _connect(options: JobBoardOptions) -> Posts:
    # Each brings a client library along that who uses the other one need not have.
    if options.backend == "redis":
        from stillframe.engine import redis_board  # noqa: PLC0415

        return redis_board.connect(options)
    from stillframe.engine import etcd_board  # noqa: PLC0415

    return etcd_board.connect(options)
