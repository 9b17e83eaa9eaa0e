"""How the service is, in the words of ``/healthz`` and ``/readyz``.

The supervisor knows, and tells the engine whenever it changes. What the network does is not
part of ``/healthz``: no new start of the service would mend that. ``/readyz`` asks for more:
whether the service is whole, and its resolver was seen to validate.
"""

from __future__ import annotations

from dataclasses import dataclass

from requiretls_milter.ipc.wire import ServiceStatus, health_line


@dataclass(frozen=True, slots=True)
class Health:
    """How the service is.

    Attributes:
        serves: whether the MTA has answers of it.
        problems: what keeps it from being whole, a sentence for each.
    """

    serves: bool = True
    problems: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """``ok`` if it is whole; otherwise what is wrong, in a line."""
        return health_line(self.serves, self.problems)

    def unready(self, resolver_validates: bool) -> list[str]:
        """What keeps the service from being ready; nothing if it is.

        Args:
            resolver_validates: whether the resolver was seen to.
        """
        reasons = list(self.problems)
        if not resolver_validates:
            reasons.append("the resolver was not seen to validate DNSSEC")
        return reasons

    @classmethod
    def of(cls, service: ServiceStatus | None) -> Health:
        """What the supervisor told last; None if it has told nothing yet."""
        if service is None:
            return STARTING
        return cls(service.serves, service.problems)


STARTING = Health(False, ("the service has not begun",))
