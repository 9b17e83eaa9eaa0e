"""The root of this package's exceptions.

Each exception class lives in the module that raises it, and its docstring says what
a caller that catches it should conclude. What the network does is never an exception:
a failed lookup or session is evidence (:mod:`requiretls_milter.model`) and has a
forecast. Exceptions are for what stops this program from doing its work: a
configuration with a mistake, a store that does not answer, a peer that speaks another
protocol.
"""

from __future__ import annotations


class RequiretlsMilterError(Exception):
    """The base class of every exception that this package defines and lets out.

    Its text is written for the operator: one line that says what failed and why.
    """
