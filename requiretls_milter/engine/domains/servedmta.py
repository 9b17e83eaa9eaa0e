"""What is known of the MTA that this service serves."""

from __future__ import annotations

from requiretls_milter.config import Config
from requiretls_milter.model import Capability, ProfileName
from requiretls_milter.syntax.capability import capability


def assumed(profile: ProfileName) -> Capability:
    """What an MTA is taken to carry of which nothing is known.

    The defaults of ``[mta]`` are those of Postfix 3.11, which carries REQUIRETLS; no other MTA that
    is known does.
    """
    return Capability.REQUIRETLS if profile is ProfileName.POSTFIX else Capability.NOTHING


class ServedMta:
    """The MTA that this service serves.

    Attributes:
        version: what it says that it is (macro ``v``), "" until it has sent any mail.
    """

    def __init__(self) -> None:
        self.version = ""

    def carries(self, config: Config) -> Capability:
        """The requirements on which it acts itself."""
        if config.mta.carries is Capability.AUTO and not self.version:
            return assumed(config.mta.profile)
        return capability(config.mta.carries, self.version)
