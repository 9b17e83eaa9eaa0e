"""The commands of ``requiretls-milter``, a module for each: what they take, print and end with.

A command only turns a command line into calls and their results into output: what is found out
and how it is worded lies in :mod:`requiretls_milter.reports`, :mod:`requiretls_milter.doctor` and
:mod:`requiretls_milter.mirror`. A module of a command imports click and
:mod:`requiretls_milter.commands.common` at its head and everything else inside the command, so that
``--help`` costs click alone.

Exit status: 0 and a command's own verdicts (its ``--help`` lists them), 2 for a wrong command line
or configuration (:data:`requiretls_milter.commands.common.USAGE`), 70 for an internal error, 130
after Ctrl-C and 141 if standard output is closed (:mod:`requiretls_milter.cli`).
"""
