"""A task of a flow whose failures can be stored, whatever it is that went wrong in it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from taskflow import task

from stillframe.engine.faults import storable


class Task(task.Task):  # type: ignore[misc]  # untyped library
    """Whatever leaves the `execute` or `revert` of a subclass leaves it as an error of our tree without a cause.

    TaskFlow writes a failure down with its causes, traceback and arguments; what is foreign in them cannot always be
    written, and what cannot be written would break the attempt off and come again with the next one.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("execute", "revert"):
            if name in cls.__dict__:
                setattr(cls, name, _storing(cls.__dict__[name]))

    def achieved(self, result: Any) -> bool:
        """Whether a result of `execute` says that what the task is called after was done.

        A failure that is data to the flow is a failure to the user.
        """
        return not (isinstance(result, dict) and result.get("ok") is False)


def _storing(method: Callable[..., Any]) -> Callable[..., Any]:
    # TaskFlow reads the names of the arguments, which it looks for behind the wrapper.
    @wraps(method)
    def stored(self: Task, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:  # noqa: BLE001  # whatever it is, somebody waits for the end of the operation
            raise storable(error, f"{self.name} ({method.__name__})") from None

    return stored
