"""The configuration: one TOML file, read once, validated whole, frozen.

Parse, do not validate: after :func:`load` the configuration holds values, not texts. A socket is a
:class:`~requiretls_milter.syntax.endpoint.MilterSocket`, a network an :mod:`ipaddress` network, a
domain an A-label, and no other part of the program parses any of them again. Written as text the
values read back as the same: ``config show --secrets`` prints a file that means the same, and the
supervisor hands the configuration to its children in this way.

Where to find what:

- ``schema``: a module for each section, with every key, its type, default, bounds and description.
  The descriptions are the manual: docs/configuration.md is made from them by ``manual``.
  ``schema.whole`` is the whole configuration.
- ``values``: how each kind of value is read, and the sentence that a mistake in it gets.
  ``fields``: the types of pydantic that the schema has for them.
- ``routes``: where mail goes if the MTA does not name its next hop.
- ``loading``: from files to a :class:`Config`. ``checks``: mistakes that no key can know of by
  itself, such as a contradiction. ``advice``: warnings.
- ``sources``: the files that a configuration is made of, put together: ``include``, and lists of
  domains (``domainlist``, ``patterns``; ``listcleaning`` makes one of a foreign list). ``reading``
  reads them, and knows when they change.
- ``mistakes``: what is wrong with a file, in plain sentences, with the key that was meant.
  ``places``: file, line and column of each key. ``repair``: what is no TOML, and the line to write.
- ``salvage``: what a file with mistakes still says of the service that runs.
- ``removed``: keys that went, and are accepted with a warning for one release.
- ``text``: a configuration as TOML. ``splice`` and ``writing``: one section of a file is changed.

To add a key, declare it in the module of its section with a description that ends with a full stop,
use it, and run ``make docs``. A key that takes effect only at a restart gets ``RESTART``. A key of
``[rules]`` is also a field of :class:`RuleTable` and of :class:`requiretls_milter.rules.Rule`.
"""

from requiretls_milter.config.advice import exposures, warnings
from requiretls_milter.config.loading import DEFAULT_PATH, load, parse, places, texts
from requiretls_milter.config.mistakes import ConfigError
from requiretls_milter.config.routes import Destination
from requiretls_milter.config.schema.dns import Dns
from requiretls_milter.config.schema.engine import Engine
from requiretls_milter.config.schema.limits import Limits
from requiretls_milter.config.schema.log import Log, LogFormat, LogLevel
from requiretls_milter.config.schema.metrics import Metrics
from requiretls_milter.config.schema.milter import Milter
from requiretls_milter.config.schema.mta import Mta, TransportOverrides
from requiretls_milter.config.schema.probe import PlainMail, Probe
from requiretls_milter.config.schema.rules import RuleList, Rules, RuleTable
from requiretls_milter.config.schema.store import Store
from requiretls_milter.config.schema.watch import Watch
from requiretls_milter.config.schema.whole import Config

__all__ = [
    "DEFAULT_PATH",
    "Config",
    "ConfigError",
    "Destination",
    "Dns",
    "Engine",
    "Limits",
    "Log",
    "LogFormat",
    "LogLevel",
    "Metrics",
    "Milter",
    "Mta",
    "PlainMail",
    "Probe",
    "RuleList",
    "RuleTable",
    "Rules",
    "Store",
    "TransportOverrides",
    "Watch",
    "exposures",
    "load",
    "parse",
    "places",
    "texts",
    "warnings",
]
