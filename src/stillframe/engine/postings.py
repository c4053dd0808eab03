"""What stands on a job board, read as what anybody may have written there who reaches Redis or etcd.

A posting says nothing but that there may be something to do, and the store decides. One that makes no sense is passed
over, and stays where it is: it may be somebody else's.
"""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from taskflow.utils import misc
from typing_extensions import TypedDict

#: A posting of ours has about 250 bytes.
MOST_BYTES: Final = 4096
#: More are not looked at; a board of 10,000 operations that wait is a long one.
MOST: Final = 20_000


def _identity(text: str) -> str:
    if str(UUID(text)) != text:
        raise ValueError("is no id as they are written")
    return text


_Id = Annotated[str, AfterValidator(_identity)]


class Posting(TypedDict):
    """One operation that is announced: `name` is its id, `uuid` the job's."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    uuid: _Id
    sequence: Annotated[int, Field(ge=0, lt=1 << 63)]


_POSTING: Final = TypeAdapter(Posting)


def from_msgpack(blob: bytes) -> Posting | None:
    """A posting as TaskFlow's board on Redis has it, or None."""
    try:
        return _posting(misc.decode_msgpack(blob, root_types=(dict,))) if len(blob) <= MOST_BYTES else None
    except Exception:  # noqa: BLE001  # what is decoded may be of types of its own, which raise what they like
        return None


def from_text(blob: bytes) -> Posting | None:
    """A posting as TaskFlow's board on etcd has it, or None."""
    return _posting(_json(blob))


def owner_from_text(blob: bytes) -> dict[str, Any]:
    """Who has claimed a job on etcd, and by which lease; what makes no sense is nobody that we are."""
    held = _json(blob)
    owner, lease = (held.get("owner"), held.get("lease_id")) if isinstance(held, dict) else (None, None)
    if not isinstance(owner, str) or not isinstance(lease, (int, str)):
        return {"owner": "somebody", "lease_id": 0}
    return {"owner": owner[:MOST_BYTES], "lease_id": lease}


def _json(blob: bytes) -> Any:
    if len(blob) > MOST_BYTES:
        return None
    try:
        return from_json(blob, allow_inf_nan=False)
    except ValueError:
        return None


def _posting(found: Any) -> Posting | None:
    try:
        return _POSTING.validate_python(found)
    except ValidationError:
        return None
