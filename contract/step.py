"""A step: a Temporal activity as the workflow that runs it and the code that carries it out both know it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

Request = TypeVar("Request", bound=BaseModel)
Answer = TypeVar("Answer", bound=BaseModel | None)


@dataclass(frozen=True)
class Step(Generic[Request, Answer]):
    """One activity: its name, and the models of what it takes and answers with."""

    name: str  #: The activity type.
    request: type[Request]
    answer: type[Answer]
