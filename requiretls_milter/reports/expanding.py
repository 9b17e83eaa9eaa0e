"""What a recipient becomes by tables that are asked, for a command (``[mta] aliases = "ask"``).

A running service is asked if its ``[mta]`` is that of this configuration: it asks the tables as its
own user, who is the one that counts. Otherwise this process asks them.
"""

from __future__ import annotations

from dataclasses import dataclass

from requiretls_milter.config import Config
from requiretls_milter.engine.expander import expanded_here
from requiretls_milter.ipc import query
from requiretls_milter.syntax.expansion import Expansion, ExpansionError


@dataclass(frozen=True, slots=True)
class CommandExpansion:
    """What a recipient becomes.

    Attributes:
        result: the addresses, or why they are not known.
        why_not_service: why this process asked the tables; "" if the service did.
    """

    result: Expansion | ExpansionError
    why_not_service: str = ""


def expand(recipient: str, config: Config) -> CommandExpansion:
    """Have a running service expand a recipient, or do it in this process.

    Args:
        recipient: as a client writes it.
        config: the configuration in force.
    """
    try:
        return CommandExpansion(_by_service(recipient, config))
    except query.EngineUnavailable as error:
        return CommandExpansion(_by_command(recipient, config), str(error))


def _by_service(recipient: str, config: Config) -> Expansion | ExpansionError:
    path = config.engine.socket
    service = query.status(path, query.STATUS_TIMEOUT).service
    if service is not None and "mta" in service.differs_in(config):
        raise query.EngineUnavailable("the running service has another [mta]")
    try:
        return query.expand(path, recipient)
    except ExpansionError as error:
        return error


def _by_command(recipient: str, config: Config) -> Expansion | ExpansionError:
    try:
        return expanded_here(recipient, config)
    except ExpansionError as error:
        return error
