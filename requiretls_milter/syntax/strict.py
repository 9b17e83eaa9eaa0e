"""JSON of another process, decoded without any goodwill.

What comes over a socket or out of a store either fits the model exactly or is an error: an
unknown key, a word outside a closed set, a number in the place of a string, NaN.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError

from requiretls_milter.syntax.text import printable


class StrictModel(BaseModel):
    """The base of messages and records: frozen, strict, and bytes written as base64."""

    model_config = ConfigDict(
        strict=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_bytes="base64",
        val_json_bytes="base64",
    )


def first_mistake(error: ValidationError, whole: str) -> str:
    """The first mistake and its place, as one printable line.

    Args:
        error: what pydantic found.
        whole: names the JSON as a whole, for a mistake that has no place within it.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or whole
    return printable(f"{place}: {first['msg']}")
