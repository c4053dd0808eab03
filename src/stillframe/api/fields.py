"""The kinds of values that requests are made of, each with its check and its place in the OpenAPI document."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from stillframe.domain.snapshot import ConsistencyLevel
from stillframe.domain.status import Status

_BOOLEANS: Final = {"true": True, "false": False}
_QUERY_BOOLEANS: Final = {**_BOOLEANS, "1": True, "0": False}
_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_ANY_CASE: Final = "^([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])$"
_LEVELS: Final = tuple(level.value for level in ConsistencyLevel)
_LISTED: Final = tuple(status.value for status in Status if status is not Status.GONE)


class Strict(BaseModel):
    """What clients send: nothing is converted, nothing unknown is let pass."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Lenient(BaseModel):
    """Queries of Nova's and Cinder's own resources: their clients send filters that mean nothing here."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class Reply(BaseModel):
    """What clients get; field names that no Python name can spell are aliases."""

    model_config = ConfigDict(frozen=True, serialize_by_alias=True)


def storable(value: str) -> str:
    """Refuse text that no database or back end can keep."""
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must not contain a lone surrogate") from None
    return value


def _boolean(value: Any) -> Any:
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004  # pydantic turns only this one into a message
    return value


def _query_boolean(value: str) -> bool:
    if value.lower() not in _QUERY_BOOLEANS:
        raise ValueError("must be true or false")
    return _QUERY_BOOLEANS[value.lower()]


def _whole_number(value: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(value):
        raise ValueError("must be a whole number, 0 or more")
    return int(value)


def _known_status(value: str) -> str:
    if value not in _LISTED:
        raise ValueError(f"must be one of {', '.join(_LISTED)}")
    return value


def _known_level(value: str) -> str:
    if value not in _LEVELS:
        raise ValueError(f"must be one of {', '.join(_LEVELS)}")
    return value


Text = Annotated[str, AfterValidator(storable)]
Id = Annotated[Text, Field(min_length=1, max_length=255)]
# A name of blanks only could be neither seen in a list nor filtered by.
Name = Annotated[Text, Field(min_length=1, max_length=255, pattern=r"\S")]
Description = Annotated[Text, Field(max_length=255)]
Flag = Annotated[
    bool,
    BeforeValidator(_boolean),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "pattern": _ANY_CASE}]}),
]
QueryFlag = Annotated[
    bool,
    BeforeValidator(_query_boolean),
    WithJsonSchema({"type": "string", "pattern": f"{_ANY_CASE[:-2]}|0|1)$"}),
]
Limit = Annotated[int, BeforeValidator(_whole_number), WithJsonSchema({"type": "integer", "minimum": 0})]
StatusName = Annotated[str, AfterValidator(_known_status), WithJsonSchema({"type": "string", "enum": list(_LISTED)})]
LevelName = Annotated[str, AfterValidator(_known_level), WithJsonSchema({"type": "string", "enum": list(_LEVELS)})]
