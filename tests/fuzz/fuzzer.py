"""Runs one target below atheris: ``python -m tests.fuzz.fuzzer TARGET [LIBFUZZER'S OPTIONS]``.

In a process of its own, since libFuzzer ends the process that it runs in, and
since atheris only counts the branches of what is imported after it.
"""

from __future__ import annotations

import sys

from tests.fuzz.table import PRODUCT, TARGETS


def main() -> None:
    """Fuzz until the options say that it is enough; does not return."""
    import atheris

    target = TARGETS[sys.argv[1]]
    with atheris.instrument_imports(include=[PRODUCT, *target.instrument]):
        function = target.load()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], function)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
