"""Servers in which Postfix has tables of aliases, each with a password: databases of Debian.

``with Database(kind, entries) as server:`` answers on loopback for ``server.settings``, the text of
the file that main.cf names (ldap_table(5), mysql_table(5), pgsql_table(5)).
"""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from tests.lab import netns, roots, runs
from tests.lab.processes import Server, accepts, run
from tests.support.processes import free_port

PASSWORD = "geheim-7-wort"
"""Of all of them: it must be in no log."""

_NOBODY = 65534
_PGSQL = "/usr/lib/postgresql/17/bin"
_MARIADB = Path("usr/share/mariadb")
_SYSTEM_TABLES = (
    "mariadb_system_tables.sql",
    "mariadb_performance_tables.sql",
    "mariadb_system_tables_data.sql",
)
_QUERY = "query = SELECT goto FROM alias WHERE address = '%s'\n"


class Database(ABC):
    """One server; it runs as nobody, chrooted to its root."""

    kind: str
    """The type of its table in Postfix."""

    def __init__(self, entries: Mapping[str, str]) -> None:
        """Plan a server that has these aliases; its root is made if there is none.

        Raises:
            LabUnavailable: its root cannot be made.
        """
        with netns.outside():
            self._root = roots.ensure(roots.DATABASES)
        self._entries = entries
        self._server: Server | None = None
        self.port = free_port()

    @property
    @abstractmethod
    def settings(self) -> str:
        """The text of the table's file."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make its files."""

    @property
    @abstractmethod
    def _command(self) -> list[str]:
        """What is started."""

    def __enter__(self) -> Database:
        """Start it; return when it answers."""
        self._run = runs.make(self._root)
        self._make("data")
        self._prepare()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it and remove its files."""
        self.stop()
        self._run.remove()

    def start(self) -> None:
        """Start it again."""
        self._server = Server(
            self.kind,
            self._as_nobody(self._command),
            log=self._run.outside / "log",
            grace=1.0,  # PostgreSQL would wait for its clients
        )
        self._server.wait_until(lambda: accepts("127.0.0.1", self.port), "accepting queries")

    def stop(self) -> None:
        """Stop it, if it runs."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def _as_nobody(self, command: list[str]) -> list[str]:
        chroot = shutil.which("chroot", path="/usr/sbin:/usr/bin")
        assert chroot is not None
        return [chroot, f"--userspec={_NOBODY}:{_NOBODY}", str(self._root), *command]

    def _do(self, command: list[str], text: str = "") -> None:
        run(self._as_nobody(command), text=text)

    def _make(self, folder: str) -> None:
        path = self._run.outside / folder
        path.mkdir(mode=0o700)
        shutil.chown(path, _NOBODY, _NOBODY)

    def _inside(self, name: str) -> str:
        return f"{self._run.inside}/{name}"

    @property
    def _rows(self) -> str:
        values = ", ".join(f"('{key}', '{value}')" for key, value in self._entries.items())
        return (
            "CREATE TABLE alias (address VARCHAR(255), goto VARCHAR(255));\n"
            f"INSERT INTO alias VALUES {values};\n"
        )


class OpenLdap(Database):
    """slapd(8)."""

    kind = "ldap"

    @property
    def settings(self) -> str:
        """ldap_table(5)."""
        return (
            f"server_host = ldap://127.0.0.1:{self.port}\nversion = 3\nbind = yes\n"
            f"bind_dn = cn=postfix,o=lab\nbind_pw = {PASSWORD}\nsearch_base = o=lab\n"
            "query_filter = (uid=%s)\nresult_attribute = description\n"
        )

    def _prepare(self) -> None:
        (self._run.outside / "slapd.conf").write_text(
            "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\n"
            f"moduleload back_mdb\npidfile {self._inside('data/pid')}\n"
            'database mdb\nsuffix "o=lab"\nrootdn "cn=postfix,o=lab"\n'
            f"rootpw {PASSWORD}\ndirectory {self._inside('data')}\n"
        )
        people = "".join(
            f"\ndn: cn={number},o=lab\nobjectClass: organizationalRole\nobjectClass: uidObject\n"
            f"cn: {number}\nuid: {address}\ndescription: {to}\n"
            for number, (address, to) in enumerate(self._entries.items())
        )
        text = f"dn: o=lab\nobjectClass: organization\no: lab\n{people}"
        self._do(["/usr/sbin/slapadd", "-q", "-f", self._inside("slapd.conf")], text)

    @property
    def _command(self) -> list[str]:
        at = f"ldap://127.0.0.1:{self.port}"
        return ["/usr/sbin/slapd", "-d", "0", "-f", self._inside("slapd.conf"), "-h", at]


class MariaDb(Database):
    """mariadbd(8)."""

    kind = "mysql"

    @property
    def settings(self) -> str:
        """mysql_table(5)."""
        return (
            f"hosts = inet:127.0.0.1:{self.port}\nuser = postfix\npassword = {PASSWORD}\n"
            f"dbname = mail\n{_QUERY}"
        )

    def _prepare(self) -> None:
        system = "".join((self._root / _MARIADB / name).read_text() for name in _SYSTEM_TABLES)
        self._do(
            [*self._command, "--bootstrap"],
            f"CREATE DATABASE mysql;\nUSE mysql;\n{system}FLUSH PRIVILEGES;\n"
            f"CREATE DATABASE mail;\nUSE mail;\n{self._rows}"
            f"CREATE USER postfix IDENTIFIED BY '{PASSWORD}';\n"
            "GRANT SELECT ON mail.* TO postfix;\n",
        )

    @property
    def _command(self) -> list[str]:
        return [
            *("/usr/sbin/mariadbd", "--no-defaults", f"--datadir={self._inside('data')}"),
            *(f"--lc-messages-dir=/{_MARIADB}", "--innodb-buffer-pool-size=8M"),
            *("--bind-address=127.0.0.1", f"--port={self.port}"),
            *(f"--socket={self._inside('data/socket')}", f"--pid-file={self._inside('data/pid')}"),
        ]


class PostgreSql(Database):
    """postgres(1)."""

    kind = "pgsql"

    @property
    def settings(self) -> str:
        """pgsql_table(5); the password is in a URL."""
        return (
            f"hosts = postgresql://postfix:{PASSWORD}@127.0.0.1:{self.port}/postgres\n"
            f"dbname = postgres\n{_QUERY}"
        )

    def _prepare(self) -> None:
        (self._run.outside / "password").write_text(PASSWORD)
        self._do(
            [
                *(f"{_PGSQL}/initdb", "-D", self._inside("data"), "-U", "postfix", "-N"),
                *("--no-locale", "-E", "UTF8", "-A", "scram-sha-256"),
                *("--pwfile", self._inside("password")),
                *("--set", "dynamic_shared_memory_type=mmap"),  # there is no /dev/shm
            ]
        )
        alone = ["--single", "-j", "-D", self._inside("data"), "postgres"]
        self._do([f"{_PGSQL}/postgres", *alone], self._rows.replace(";\n", ";\n\n"))

    @property
    def _command(self) -> list[str]:
        at = ["-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        return [f"{_PGSQL}/postgres", "-D", self._inside("data"), *at]
