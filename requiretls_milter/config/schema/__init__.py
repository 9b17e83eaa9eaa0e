"""The configuration's schema: a module for each section, with the section's name.

The description of each field is its reference manual: docs/configuration.md and ``config show
--defaults`` are made from them. Sections and fields have the names and the order of the TOML file:
:class:`~requiretls_milter.config.schema.whole.Config` names the sections in that order. How a value
is read is told in :mod:`requiretls_milter.config.values`.

Every value is frozen, canonical (domains are A-labels; addresses, paths and sockets have one form)
and complete: a key that the file leaves out has its default. In the tables by domain of
``[rules]`` and by transport of ``[mta]`` None means "inherited".
"""
