"""The manual pages and the completion of shells, made from what they describe.

The commands are described by their own help, the configuration by its schema, the metrics by their
catalogue. ``make docs`` writes the pages into ``packaging/`` (``python -m
requiretls_milter.manuals``); packages and ``make install`` take them from there.
"""
