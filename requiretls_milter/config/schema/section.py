"""What every section of the configuration is made of."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

RESTART: JsonDict = {"restart": True}
"""Marks a field that takes effect only when the service is started again."""


def needs_restart(field: FieldInfo) -> bool:
    """Whether a change of *field* waits for the next start of the service."""
    return field.json_schema_extra == RESTART


class Section(BaseModel):
    """A table of the file: frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")
