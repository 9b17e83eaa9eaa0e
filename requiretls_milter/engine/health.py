"""How the service is, in the words of ``/healthz``.

The supervisor knows, and tells the engine whenever it changes. What the network does is not
part of it: no new start of the service would mend that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is.

    Attributes:
        serves: whether the MTA has answers of it.
        text: ``ok`` if it is whole; otherwise what is wrong.
    """

    serves: bool
    text: str

    @classmethod
    def read(cls, message: Mapping[str, Any]) -> Health:
        """What a message of the supervisor says."""
        return cls(bool(message["serves"]), str(message["text"]))


STARTING = Health(False, "failed: the service has not begun")
