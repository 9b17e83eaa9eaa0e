"""The baseline of every ratio: the milter that anybody would write with pymilter.

One process, unpinned; MAIL, RCPT reading two macros, header fields without a
reply, and at the end of the message one header field is added.

    python -m tests.bench.baseline SOCKET
"""

from __future__ import annotations

import sys

import Milter


class Baseline(Milter.Base):  # type: ignore[misc]
    """One connection."""

    def envfrom(self, sender: str, *parameters: str) -> int:
        self.sender = sender
        return int(Milter.CONTINUE)

    def envrcpt(self, recipient: str, *parameters: str) -> int:
        self.mailer = self.getsymval("{rcpt_mailer}")
        self.host = self.getsymval("{rcpt_host}")
        return int(Milter.CONTINUE)

    @Milter.noreply  # type: ignore[untyped-decorator]
    def header(self, name: str, value: str) -> int:
        return int(Milter.CONTINUE)

    def eom(self) -> int:
        self.addheader("X-Baseline", "requirement=none")
        return int(Milter.CONTINUE)


def main() -> None:
    """Serve until killed."""
    Milter.factory = Baseline
    Milter.set_flags(Milter.ADDHDRS)
    Milter.runmilter("baseline", f"unix:{sys.argv[1]}", 600)


if __name__ == "__main__":
    main()
