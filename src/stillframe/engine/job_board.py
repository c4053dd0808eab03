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
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, Final, Protocol

from taskflow import exceptions

from stillframe.domain.errors import StillframeError
from stillframe.settings.job_board import JobBoardOptions

LOG = logging.getLogger(__name__)

_POLL_EVERY: Final = 0.2
# How long a board that does not answer is left in peace, and how often the store is asked meanwhile.
_SILENCE: Final = 5.0
_LOOK_EVERY: Final = 1.0
# How long the end of the process waits for what is still to be told.
_LAST_WORDS: Final = 2.0
# Reading a long board takes long; a worker spends no more than this part of its time with it.
_SHARE: Final = 0.05
_SOME: Final = 500


class Posts(Protocol):
    """A connected job board of TaskFlow's, with what its interface lacks."""

    def post(self, name: str) -> Any: ...

    def claim(self, job: Any, who: str, expiry: int) -> None: ...

    def consume(self, job: Any, who: str) -> None: ...

    def abandon(self, job: Any, who: str) -> None: ...

    def prolong(self, job: Any, who: str, expiry: int) -> bool:
        """Have one's claim hold for so many seconds from now; False if it has run out."""
        ...

    def listed(self) -> Sequence[Any]:
        """All jobs, in one request; TaskFlow's own iteration makes one more for the state of each."""
        ...

    def posted(self) -> int:
        """A number that grows with every post."""
        ...

    def close(self) -> None: ...


Act = Callable[[Posts], object]


class JobBoard:
    """One job an operation, named by its id. See `Board`.

    One thread of its own makes all requests: who tells the board something goes on at once, be it a request of the API
    or the heartbeat of claims, however long the board takes to answer. What it cannot be told is dropped.

    Jobs are claimed with an expiry that is renewed while the work goes on, so that the board shows who works on what;
    who may, the store says. Jobs of operations that are final, or that were posted twice, are tidied away.
    """

    def __init__(
        self,
        options: JobBoardOptions,
        claim_seconds: float,
        open_among: Callable[[Collection[str]], set[str]],
        *,
        tidy_seconds: float = 30.0,
    ) -> None:
        self._options = options
        self._tidy_seconds = tidy_seconds
        self._expiry = math.ceil(claim_seconds)
        self._open_among = open_among
        self._who = f"stillframe-{uuid.uuid4()}"
        self._thread = threading.Thread(target=self._work, name="job board", daemon=True)
        self._starting = threading.Lock()
        self._acts: SimpleQueue[Act | None] = SimpleQueue()
        self._waiting: Event | None = None
        self._answers = True
        # From here on the thread's own.
        self._posts: Posts | None = None
        self._silent_until = 0.0
        self._jobs: Mapping[str, list[Any]] = {}
        self._claimed: dict[str, Any] = {}
        self._read_at = self._reading_took = 0.0
        self._polled_at = 0.0
        self._tidied_at = -math.inf
        self._posted = 0

    @property
    def answers(self) -> bool:
        """See `Board`."""
        return self._answers

    def announce(self, operation_id: str) -> None:
        """See `Board`."""
        self._tell(lambda posts: posts.post(operation_id))

    def taken(self, operation_id: str) -> None:
        """See `Board`: the job is claimed, or posted again if it has got lost."""
        self._tell(lambda posts: self._claim(posts, operation_id))

    def renew(self, operation_ids: Collection[str]) -> None:
        """See `Board`."""
        self._tell(lambda posts: self._prolong(posts, operation_ids))

    def put_back(self, operation_id: str) -> None:
        """See `Board`."""
        self._tell(lambda posts: self._give_up(posts.abandon, operation_id))

    def done(self, operation_id: str) -> None:
        """See `Board`."""
        self._tell(lambda posts: self._give_up(posts.consume, operation_id))

    def wait(self, wake: Event, seconds: float) -> None:
        """See `Board`."""
        if self._waiting is not wake:
            self._waiting = wake
            self._tell(self._poll)
        wake.wait(seconds if self._answers else min(seconds, _LOOK_EVERY))

    def close(self) -> None:
        """See `Board`."""
        self._acts.put(None)
        if self._thread.is_alive():
            self._thread.join(_LAST_WORDS)

    def _tell(self, act: Act) -> None:
        self._acts.put(act)
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()

    def _work(self) -> None:
        while True:
            try:
                act = self._acts.get(timeout=_POLL_EVERY if self._waiting or not self._answers else None)
                if act is None:
                    self._drop()
                    return
                self._try(act)
            except Empty:
                pass
            # Who only tells it something would learn at the next occasion that it is back.
            looks = self._waiting or not self._answers
            if looks and time.monotonic() - self._polled_at >= _POLL_EVERY:
                self._try(self._poll)

    def _try(self, act: Act) -> None:
        """Do something at the board; if it does not answer, it is left in peace for a while."""
        if time.monotonic() < self._silent_until:
            return
        try:
            if self._posts is None:
                self._posts = _connect(self._options)
            _attempt(act, self._posts)
        except Exception as error:  # noqa: BLE001  # the libraries below raise what they like
            self._fall_silent(error)
            return
        if not self._answers:
            LOG.info("the job board answers again")
        self._answers = True

    def _fall_silent(self, error: Exception) -> None:
        self._silent_until = time.monotonic() + _SILENCE
        if self._answers:
            why = f"{type(error).__name__}: {error}"
            LOG.warning("the job board does not answer, the database is asked instead: %s", why)
        self._answers = False
        if self._waiting:
            # From now on it looks more often.
            self._waiting.set()
        self._drop()

    def _drop(self) -> None:
        posts, self._posts = self._posts, None
        try:
            if posts is not None:
                posts.close()
        except Exception as error:  # noqa: BLE001  # as above
            LOG.debug("the connection to the job board could not be ended: %s", error)

    def _poll(self, posts: Posts) -> None:
        """Wake who waits if something was posted since the last look."""
        self._polled_at = time.monotonic()
        posted = posts.posted()
        if posted != self._posted and self._waiting:
            self._posted = posted
            self._waiting.set()
        if self._polled_at - self._tidied_at > self._tidy_seconds:
            self._tidied_at = self._polled_at
            self._tidy(posts)

    def _claim(self, posts: Posts, operation_id: str) -> None:
        if operation_id not in self._jobs and not self._read(posts):
            # The next renewal has another look.
            return
        jobs = self._jobs.get(operation_id) or [posts.post(operation_id)]
        posts.claim(jobs[0], self._who, self._expiry)
        self._claimed[operation_id] = jobs[0]

    def _prolong(self, posts: Posts, operation_ids: Collection[str]) -> None:
        for operation_id in operation_ids:
            job = self._claimed.get(operation_id)
            if job is None or not posts.prolong(job, self._who, self._expiry):
                # Not found before, a dead worker's until now, or run out while this process or the board was held up.
                _attempt(partial(self._claim_again, operation_id), posts)

    def _claim_again(self, operation_id: str, posts: Posts) -> None:
        self._claimed.pop(operation_id, None)
        if operation_id not in self._jobs:
            self._read(posts)
        for job in self._jobs.get(operation_id, [])[:1]:
            posts.claim(job, self._who, self._expiry)
            self._claimed[operation_id] = job

    def _give_up(self, how: Callable[[Any, str], None], operation_id: str) -> None:
        job = self._claimed.pop(operation_id, None)
        if job is not None:
            how(job, self._who)

    def _read(self, posts: Posts) -> bool:
        """Look at all jobs; False if that was done just now for how long it takes."""
        started = time.monotonic()
        if started - self._read_at < self._reading_took / _SHARE:
            return False
        jobs: dict[str, list[Any]] = defaultdict(list)
        for job in posts.listed():
            jobs[job.name].append(job)
        self._jobs = dict(jobs)
        self._read_at = time.monotonic()
        self._reading_took = self._read_at - started
        return True

    def _tidy(self, posts: Posts) -> None:
        """Take jobs away whose operations are final, and the second of two."""
        self._read(posts)
        names = list(self._jobs)
        for start in range(0, len(names), _SOME):
            some = names[start : start + _SOME]
            try:
                still_open = self._open_among(some)
            except StillframeError as error:
                LOG.debug("nobody can say at present which jobs are over: %s", error)
                return
            unwanted = [
                job for name in some for job in (self._jobs[name][1:] if name in still_open else self._jobs[name])
            ]
            for job in unwanted[:_SOME]:
                _attempt(partial(self._take_away, job), posts)

    def _take_away(self, job: Any, posts: Posts) -> None:
        posts.claim(job, self._who, self._expiry)
        posts.consume(job, self._who)


def _attempt(act: Act, posts: Posts) -> None:
    """Do something that is in vain where the job is gone or somebody else's; raises if the board does not answer."""
    try:
        act(posts)
    except Exception as error:
        if not _knows_better(error):
            raise
        LOG.debug("the job board knows better: %s", error)


def _knows_better(error: Exception) -> bool:
    """Whether the board has answered: the job is gone or somebody else's."""
    # The stock boards raise JobFailure for a job of somebody else's, for an owner that makes no sense, which comes with
    # a ValueError, and around what a lost connection raises.
    if isinstance(error, exceptions.JobFailure):
        cause = error.__cause__ or error.cause
        return cause is None or isinstance(cause, ValueError)
    return isinstance(error, (exceptions.NotFound, exceptions.UnclaimableJob, UnicodeDecodeError))


def probe(options: JobBoardOptions) -> None:
    """Raises whatever a board raises that cannot be used, `ImportError` without its library."""
    posts = _connect(options)
    try:
        posts.posted()
    finally:
        posts.close()


def _connect(options: JobBoardOptions) -> Posts:
    # Each brings a client library along that who uses the other one need not have.
    if options.backend == "redis":
        from stillframe.engine import redis_board  # noqa: PLC0415

        return redis_board.connect(options)
    from stillframe.engine import etcd_board  # noqa: PLC0415

    return etcd_board.connect(options)
