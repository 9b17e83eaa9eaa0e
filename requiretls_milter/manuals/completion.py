"""What bash, zsh and fish need to complete our commands: click's own scripts."""

from __future__ import annotations

from collections.abc import Mapping

from click.shell_completion import get_completion_class

from requiretls_milter.cli import PROGRAM, commands

_VARIABLE = f"_{PROGRAM.upper().replace('-', '_')}_COMPLETE"

_FILES = {
    "bash": f"bash/{PROGRAM}",
    "zsh": f"zsh/_{PROGRAM}",
    "fish": f"fish/{PROGRAM}.fish",
}
"""Their names, as each shell looks for them."""


def completions() -> Mapping[str, str]:
    """Make all scripts: the name of the file, and what is in it.

    Raises:
        LookupError: click knows nothing of one of the shells.
    """
    found = {}
    for shell, file in _FILES.items():
        kind = get_completion_class(shell)
        if kind is None:
            raise LookupError(f"click does not complete for {shell}")
        template = kind(commands, {}, PROGRAM, _VARIABLE)
        # kind.source() of bash would start a bash to see how old it is.
        found[file] = template.source_template % template.source_vars() + "\n"
    return found
