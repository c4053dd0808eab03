"""What a driver is told about the operation on whose behalf it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stillframe.domain.errors import StillframeError, Unavailable


def _unnoted() -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Call:
    """The operation behind a driver call.

    Long calls run `check` between their steps and at least once a second: it raises `Interrupted` when the operation
    is past its deadline or has been settled elsewhere, and the driver then leaves without changing anything more.
    `report` takes bytes done and bytes in all; it is cheap and may be called often. `instance_id` is what the operation
    is about, where there is one. `touch` notes that a volume may not be any more what it was. `repeated`: somebody has
    been at it before; what was asked for then may never have been answered, and may come yet.
    """

    operation_id: str
    request_id: str
    check: Callable[[], None]
    report: Callable[[int, int], None]
    instance_id: str | None = None
    touch: Callable[[], None] = _unnoted
    repeated: bool = False

    @contextmanager
    def touching(self) -> Iterator[None]:
        """Around the one request by which a restore begins to change its volume.

        The volume then counts as touched, but not where the request was refused. What a driver does before it leaves
        the volume as it is. A request whose answer did not come may have been carried out.
        """
        try:
            yield
        except StillframeError as error:
            if isinstance(error, Unavailable):
                self.touch()
            raise
        except BaseException:
            self.touch()
            raise
        self.touch()
