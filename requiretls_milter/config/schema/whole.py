"""The whole configuration: its sections, and what is said of all of them."""

from __future__ import annotations

import hashlib
from typing import Any, Self

from pydantic import ModelWrapValidatorHandler, PrivateAttr, model_validator

from requiretls_milter.config.reading import ConfigOrigin
from requiretls_milter.config.removed import without_removed
from requiretls_milter.config.schema.dns import Dns
from requiretls_milter.config.schema.engine import Engine
from requiretls_milter.config.schema.limits import Limits
from requiretls_milter.config.schema.log import Log
from requiretls_milter.config.schema.metrics import Metrics
from requiretls_milter.config.schema.milter import Milter
from requiretls_milter.config.schema.mta import Mta
from requiretls_milter.config.schema.probe import Probe
from requiretls_milter.config.schema.rules import Rules
from requiretls_milter.config.schema.section import Section, needs_restart
from requiretls_milter.config.schema.store import Store
from requiretls_milter.config.schema.watch import Watch


class Config(Section):
    """The whole configuration."""

    milter: Milter = Milter()
    metrics: Metrics = Metrics()
    engine: Engine = Engine()
    log: Log = Log()
    mta: Mta = Mta()
    dns: Dns = Dns()
    probe: Probe = Probe()
    rules: Rules = Rules()
    watch: Watch = Watch()
    store: Store = Store()
    limits: Limits = Limits()

    _removed: tuple[str, ...] = PrivateAttr(())
    _origin: ConfigOrigin = PrivateAttr(ConfigOrigin())

    @property
    def removed(self) -> tuple[str, ...]:
        """A warning for each key of the file that is accepted, but has no effect any more."""
        return self._removed

    @property
    def origin(self) -> ConfigOrigin:
        """The files that it was read from; none for one that came another way."""
        return self._origin

    def read_from(self, origin: ConfigOrigin) -> None:
        """Note the files that it was read from, which are no values of it."""
        self._origin = origin

    def __eq__(self, other: object) -> bool:
        """Whether all values are the same; a removed key has no value."""
        return isinstance(other, Config) and self.__dict__ == other.__dict__

    @model_validator(mode="wrap")
    @classmethod
    def _let_removed_pass(cls, raw: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(raw, dict):
            return handler(raw)
        kept, warnings = without_removed(raw)
        config = handler(kept)
        config._removed = warnings
        return config

    def assessment_digest(self, authorities: str) -> str:
        """A digest of all that a forecast depends on: [mta], [dns], [probe] and the authorities.

        Two processes with the same digest make the same forecast from the same evidence, so that
        each may use the forecasts of the other.

        Args:
            authorities: the digest of the certification authorities that count, since files of
                one name may hold different ones.
        """
        text = self.model_dump_json(include={"mta", "dns", "probe"}) + authorities
        return hashlib.sha256(text.encode()).hexdigest()

    def digests(self) -> dict[str, str]:
        """A digest of each section, by which two processes can tell what differs.

        A digest says nothing of a password in it to others than the service's own user and root,
        who may read the file as well.
        """
        return {
            section: hashlib.sha256(getattr(self, section).model_dump_json().encode()).hexdigest()
            for section in type(self).model_fields
        }

    def with_suspension(self, suspended: bool) -> Config:
        """The same, but for ``rules.suspended``."""
        rules = self.rules.model_copy(update={"suspended": suspended})
        return self.model_copy(update={"rules": rules})

    def changes_at_restart(self, new: Config) -> tuple[str, ...]:
        """The dotted keys that differ in *new* and take effect only at a restart."""
        changed = []
        for section in type(self).model_fields:
            old_values, new_values = getattr(self, section), getattr(new, section)
            for key, field in type(old_values).model_fields.items():
                differs = getattr(old_values, key) != getattr(new_values, key)
                if differs and needs_restart(field):
                    changed.append(f"{section}.{key}")
        return tuple(changed)
