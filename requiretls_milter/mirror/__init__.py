"""How Postfix delivers, written as the ``[mta]`` section of this program's configuration.

A forecast predicts what *this* Postfix will do, so ``[mta]`` has to say what Postfix is set to.
This package reads the settings and makes the section from them:

- :mod:`~requiretls_milter.mirror.postconf` runs postconf(1) and postmap(1), and nothing else here
  runs a program. Macros, defaults and the ``-o`` settings of master.cf are expanded by Postfix
  itself.
- :mod:`~requiretls_milter.mirror.resolve` asks a running Postfix where it sends mail.
- :mod:`~requiretls_milter.mirror.section` makes the section: one profile for main.cf, and one for
  each smtp(8) of master.cf that differs from it (:mod:`~requiretls_milter.mirror.client`);
  :mod:`~requiretls_milter.mirror.text` writes it.
- :mod:`~requiretls_milter.mirror.agents` says which transports deliver on this host, and
  :mod:`~requiretls_milter.mirror.routing` makes routes of the address classes and transport_maps;
  :mod:`~requiretls_milter.mirror.domainlists` reads the lists of domains of these classes.
- :mod:`~requiretls_milter.mirror.requiretls_policy` and
  :mod:`~requiretls_milter.mirror.tls_policy` translate the two kinds of lookup tables.
- :mod:`~requiretls_milter.mirror.moved` finds where a recipe moves mail by the tag's route.
- :mod:`~requiretls_milter.mirror.unmirrored` lists the settings that change what Postfix delivers
  and have no key in ``[mta]``: each becomes a warning, worded by
  :mod:`~requiretls_milter.mirror.wording`.

If no key fits exactly, the mirror takes the less secure value, and a warning says so. The command
``mta import`` prints the section, ``doctor`` compares it with the configuration.
"""
