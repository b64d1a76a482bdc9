"""The JSON that Label Studio sends, as far as it is read here."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from svfseg.errors import InputError
from svfseg.web.labelstudio.tables import LEAST, MOST
from svfseg.web.validation import PlainText, first_problem

P = TypeVar("P", bound=BaseModel)
Json = Mapping[str, Any]
# An id of Label Studio's database; no bool, and nothing that no table holds.
Number = Annotated[int, Field(strict=True, ge=LEAST, le=MOST)]


class ProjectPayload(BaseModel):
    """The project that an event is of."""

    id: Number | None = None
    label_config: str | None = None


class AnnotationPayload(BaseModel):
    """An annotation: its results are the marks in an image."""

    id: Number | PlainText | None = None
    task: Number | None = None
    result: list[Any] | None = None
    was_cancelled: bool | None = None


class TaskPayload(BaseModel):
    """A task: its data holds the address of an image."""

    id: Number | None = None
    data: dict[str, Any] | None = None
    annotations: list[AnnotationPayload] = []


class Event(BaseModel):
    """What every event of the webhook holds."""

    project: ProjectPayload | None = None


class AnnotationEvent(Event):
    """One annotation was created or updated."""

    task: TaskPayload
    annotation: AnnotationPayload


class AnnotationsEvent(Event):
    """Several annotations were created at once."""

    task: list[TaskPayload]
    annotation: list[AnnotationPayload]


class DeletedEvent(Event):
    """Annotations were deleted: a list, or a single one."""

    annotations: list[AnnotationPayload] = []
    annotation: AnnotationPayload | None = None


class SetupRequest(BaseModel):
    """The body of /setup."""

    label_config: str | None = Field(default=None, alias="schema")


class PredictRequest(BaseModel):
    """The body of /predict."""

    tasks: list[TaskPayload] = []
    label_config: str | None = None


class TrainRequest(BaseModel):
    """The body of /train: tasks with their annotations."""

    annotations: list[TaskPayload]


class VersionsRequest(BaseModel):
    """The body of /versions."""

    project: str | int | None = None


def read_payload(kind: type[P], content: object, name: str) -> P:
    """Check JSON of Label Studio.

    Args:
        kind: what it must be.
        content: the JSON.
        name: name of the event or object, for the message.

    Raises:
        InputError: it is something else.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"{name} is not as Label Studio's webhook sends it ({first_problem(error)}): let it "
            "send the payload"
        ) from error
