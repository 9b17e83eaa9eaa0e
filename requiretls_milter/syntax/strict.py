"""JSON of another process, decoded strictly.

What comes over a socket or out of a store either fits the model exactly or is an error: an
unknown key, a word outside a closed set, a number in the place of a string, NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

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


T = TypeVar("T")


def decoded(read: Callable[[bytes], T], octets: bytes, refusal: type[Exception], whole: str) -> T:
    """Decode JSON of another process.

    Args:
        read: of a model or of a type adapter.
        octets: the JSON.
        refusal: raised, with the first mistake and its place, if the JSON does not fit the model.
        whole: names the JSON as a whole, for a mistake that has no place within it.
    """
    try:
        return read(octets)
    except ValidationError as error:
        raise refusal(_first_mistake(error, whole)) from error


def _first_mistake(error: ValidationError, whole: str) -> str:
    """The first mistake and its place, as one printable line.

    Args:
        error: what pydantic found.
        whole: names the JSON as a whole, for a mistake that has no place within it.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"])) or whole
    return printable(f"{place}: {first['msg']}")
