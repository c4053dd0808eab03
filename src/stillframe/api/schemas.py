"""The models of instance snapshots: what requests may say, and what replies say."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, model_validator

from stillframe.api.fields import (
    Description,
    Flag,
    Id,
    LevelName,
    Limit,
    Name,
    QueryFlag,
    Reply,
    StatusName,
    Strict,
    Text,
)


class Nothing(Strict):
    """An action without arguments: `null` or an empty object."""


class VmSnapshot(Strict):
    """Take a snapshot; no volumes, or none named, means every volume attached to the instance."""

    name: Name
    description: Description | None = None
    volumes: list[Id] | None = None
    minimum_consistency: LevelName | None = Field(
        default=None,
        description="the level below which the snapshot fails and nothing of it is kept; none by default",
    )


class VmRestore(Strict):
    """Restore, or retry or roll back a restore that failed."""

    instance_snapshot_id: Id
    force: Flag = False
    retry: Flag = False
    rollback: Flag = False

    @model_validator(mode="after")
    def _one_way(self) -> VmRestore:
        if self.retry and self.rollback:
            raise ValueError("'retry' and 'rollback' exclude each other")
        return self


class UpdateSnapshot(Strict):
    """Change the name, the description, or both."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    # None stands for "not given": a name cannot be null, and a null description is an empty one.
    name: Annotated[Name, Field(default=None)]
    description: Description | None = None

    @model_validator(mode="after")
    def _something(self) -> UpdateSnapshot:
        if not self.model_fields_set:
            raise ValueError("needs a name or a description")
        return self

    def changes(self) -> dict[str, str]:
        given = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value or "" for name, value in given.items()}


class CopyProgress(Strict):
    """Ask for a volume's FlashCopy mappings, with all of their columns or the main ones."""

    details: Flag = False


class ListQuery(Strict):
    """What a list of instance snapshots may be asked for."""

    limit: Limit | None = None
    marker: Id | None = None
    sort: Annotated[Text, Field(min_length=1, description="key:direction, separated by commas")] | None = None
    sort_key: Id | None = None
    sort_dir: Annotated[str, Field(pattern="^(asc|desc)$")] | None = None
    status: StatusName | None = None
    instance_id: Id | None = None
    name: Id | None = None
    all_tenants: QueryFlag = False


class ProgressQuery(Strict):
    """Which task, as its URI names it."""

    action: Id
    task_id: Id
    id: Id


class CreatedSnapshot(Reply):
    task_uri: str
    id: str


class CreateReply(Reply):
    instance_snapshot: CreatedSnapshot


class TaskReply(Reply):
    task_uri: str
    notice: str | None = Field(
        default=None,
        exclude_if=lambda notice: notice is None,
        description="what will be otherwise than one may expect, such as that the instance cannot be started again",
    )


class UpdatedSnapshot(Reply):
    id: str


class UpdateReply(Reply):
    instance_snapshot: UpdatedSnapshot


class FaultView(Reply):
    """The last failure."""

    code: str
    message: str
    created_at: str


class ConsistencyView(Reply):
    """What the cut achieved, and why it is no better than that."""

    level: str
    cut_window_ms: float
    reason: str | None = Field(
        default=None, exclude_if=lambda reason: reason is None, description="why the level is no better"
    )


class OmissionView(Reply):
    """Something of the instance that no copy holds; `volume_id` is null for a disk that is no volume."""

    kind: str = Field(description="volume, root_disk, ephemeral_disk, swap_disk or another word of the platform")
    volume_id: str | None
    why: str


class SnapshotView(Reply):
    """An instance snapshot; the maps go from volume id to volume snapshot id."""

    id: str
    name: str
    description: str
    status: StatusName
    instance_id: str
    created_at: str
    updated_at: str | None
    task_uri: str | None
    snapshots: dict[str, str] | None
    temp_snapshots: dict[str, str] | None
    failed_snapshots: dict[str, str] | None
    project_id: str
    user_id: str
    fault: FaultView | None
    consistency: ConsistencyView | None
    minimum_consistency: LevelName
    not_included: list[OmissionView] | None = Field(
        description="what of the instance, as it was at the cut, is in none of the copies; null: not recorded"
    )
    guest_may_be_held: bool | None = Field(
        description="whether the instance's guest may be frozen or paused still by a snapshot; null: unknown"
    )


class ShowReply(Reply):
    instance_snapshot: SnapshotView


class Link(Reply):
    rel: str
    href: str


class ListReply(Reply):
    """One page; the links are left out on the last one."""

    instance_snapshots: list[SnapshotView]
    instance_snapshots_links: list[Link] | None = Field(default=None, exclude_if=lambda links: links is None)


class ProgressDetails(Reply):
    """How far a task is; each task of its flow stands in one of the two maps, and at the end in the first."""

    progress: Annotated[int, Field(ge=0, le=100, description="100 only at a good end")]
    flow_details: dict[str, str] = Field(description="at the end SUCCESS, FAILURE or REVERTED")
    completed_tasks: dict[str, str]
    pending_tasks: dict[str, str]
    finished_at: str | None = Field(description="null until the end")
    fault: FaultView | None = Field(description="what went wrong, as the instance snapshot says it too")
    estimated_seconds_left: int | None = Field(default=None, exclude_if=lambda seconds: seconds is None)
    queue_position: int | None = Field(default=None, exclude_if=lambda position: position is None)
    plan: dict[str, str] | None = Field(
        default=None,
        exclude_if=lambda plan: plan is None,
        description="of a restore, retry or rollback: how each volume is put back",
    )
    not_included: list[OmissionView] | None = Field(
        default=None,
        exclude_if=lambda omissions: omissions is None,
        description="of a restore, retry or rollback: what of the instance stays as it is, seen at the request",
    )


class ProgressReply(Reply):
    details: ProgressDetails


class CopyDetailsReply(Reply):
    """The mappings as the array names their columns."""

    copy_details: list[dict[str, Any]]
