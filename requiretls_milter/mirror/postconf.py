"""Read the settings of a Postfix with its own postconf(1) and postmap(1).

Postfix itself interprets its settings: ``postconf -x`` expands macros and
defaults, and runs once more for each service of master.cf with that service's
``-o`` settings, so that a value here is what the daemon itself sees. Postfix
3.11 answers in JSON, an older one in lines of ``name = value``.

Only this module runs programs; what is made of its result is pure
(:mod:`requiretls_milter.mirror.section`, :mod:`requiretls_milter.doctor.mta`).
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from requiretls_milter.errors import RequiretlsMilterError
from requiretls_milter.syntax.secrecy import without_secrets
from requiretls_milter.syntax.tables import (
    chroot_of,
    logical_lines,
    split_list,
    split_table,
    static_result,
    without_braces,
)

TIMEOUT = 15.0
"""Seconds for one run of postconf or postmap, which takes milliseconds."""

MAX_LISTED = 1_000_000
"""Entries of a table that is searched for domains."""

MAX_ENTRIES = 10_000
"""Entries of a lookup table that are mirrored: a configuration file has at most 1 MiB."""

MAX_TABLE_BYTES = 4 * 1024 * 1024
"""Size of a table's file that is read directly."""

SYSTEM_PATH = "/usr/sbin:/usr/local/sbin:/sbin"
"""Where postconf is installed; not on every user's PATH."""

GLOBAL_PARAMETERS = (
    *("mail_version", "mail_name", "compatibility_level", "config_directory", "queue_directory"),
    *("mail_owner", "myhostname", "mydomain", "mydestination", "virtual_mailbox_domains"),
    *("inet_interfaces", "proxy_interfaces", "inet_protocols"),
    *("relayhost", "transport_maps", "sender_dependent_relayhost_maps"),
    *("sender_dependent_default_transport_maps", "default_transport", "relay_transport"),
    *("local_transport", "virtual_transport", "relay_domains", "virtual_alias_domains"),
    *("parent_domain_matches_subdomains", "recipient_delimiter"),
    "empty_address_default_transport_maps_lookup_key",
    "empty_address_relayhost_maps_lookup_key",
    *("mailbox_transport", "mailbox_transport_maps"),
    *("fallback_transport", "fallback_transport_maps"),
    *("requiretls_enable", "requiretls_esmtp_header", "tls_required_enable"),
    *("soft_bounce", "defer_transports", "best_mx_transport", "ignore_mx_lookup_error"),
    *("disable_dns_lookups", "tls_append_default_CA", "tls_dane_digests", "use_srv_lookup"),
    *("allow_srv_lookup_fallback", "ignore_srv_lookup_error"),
    *("tls_ssl_options", "tls_disable_workarounds", "tls_config_file", "tls_config_name"),
    *("tls_high_cipherlist", "tls_medium_cipherlist", "tls_eecdh_auto_curves"),
    *("tls_ffdhe_auto_groups", "tls_wildcard_matches_multiple_labels"),
    *("header_checks", "mime_header_checks", "nested_header_checks", "body_checks"),
    *("canonical_maps", "recipient_canonical_maps", "virtual_alias_maps", "known_tcp_ports"),
    *("canonical_classes", "recipient_canonical_classes", "masquerade_classes"),
    *("myorigin", "append_dot_mydomain", "propagate_unmatched_extensions", "alias_maps"),
    *("virtual_alias_expansion_limit", "virtual_alias_recursion_limit"),
    "virtual_alias_address_length_limit",
    *("enable_idna2003_compatibility", "maximal_queue_lifetime", "fault_injection_code"),
    *("smtputf8_enable", "smtputf8_autodetect_classes"),
    *("milter_header_checks", "default_filter_nexthop", "relocated_maps"),
    "luser_relay",
    *("allow_percent_hack", "swap_bangpath", "resolve_dequoted_address"),
)

CLIENT_PARAMETERS = (
    *("smtp_tls_security_level", "smtp_use_tls", "smtp_enforce_tls", "smtp_tls_enforce_peername"),
    *("smtp_requiretls_policy", "smtp_tls_policy_maps", "smtp_tls_per_site"),
    *("smtp_tls_enforce_sts_mx_patterns", "smtp_tls_dane_insecure_mx_policy"),
    *("smtp_dns_support_level", "smtp_host_lookup", "smtp_dns_resolver_options"),
    *("smtp_mx_address_limit", "smtp_tls_CAfile", "smtp_tls_CApath"),
    "smtp_address_preference",
    *("smtp_tls_trust_anchor_file", "smtp_tls_scert_verifydepth", "smtp_tls_servername"),
    *("smtp_tls_verify_cert_match", "smtp_tls_secure_cert_match", "smtp_tls_wrappermode"),
    *("smtp_tls_protocols", "smtp_tls_mandatory_protocols", "smtp_tls_ciphers"),
    *("smtp_tls_mandatory_ciphers", "smtp_tls_exclude_ciphers"),
    *("smtp_tls_mandatory_exclude_ciphers", "smtp_tls_force_insecure_host_tlsa_lookup"),
    *("smtp_skip_5xx_greeting", "smtp_fallback_relay", "smtp_defer_if_no_mx_address_found"),
    *("smtp_cname_overrides_servername", "smtp_balance_inet_protocols", "smtp_never_send_ehlo"),
    *("smtp_dns_reply_filter", "smtp_reply_filter", "smtp_delivery_status_filter"),
    *("smtp_discard_ehlo_keywords", "smtp_discard_ehlo_keyword_address_maps"),
    *("smtp_tcp_port", "smtp_helo_name", "smtp_bind_address", "smtp_bind_address6"),
    "lmtp_requiretls_policy",
    *("smtp_connect_timeout", "smtp_helo_timeout", "smtp_starttls_timeout"),
    *("smtp_per_request_deadline", "smtp_always_send_ehlo", "smtp_pix_workarounds"),
    *("smtp_sasl_auth_enable", "smtp_tls_block_early_mail_reply", "smtp_tls_connection_reuse"),
    *("smtp_tls_chain_files", "smtp_tls_cert_file", "smtp_tls_eccert_file", "smtp_tls_dcert_file"),
    *("smtp_tls_enable_rpk", "smtp_pix_workaround_maps"),
)

LMTP_PARAMETERS = tuple(
    name.replace("smtp_", "lmtp_", 1)
    for name in CLIENT_PARAMETERS
    if name.startswith("smtp_") and name != "smtp_requiretls_policy"
)
"""The same of lmtp(8); a name that Postfix does not have is left out of its answer."""

RESTRICTIONS = tuple(
    f"smtpd_{name}_restrictions"
    for name in ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
)
"""Lists of smtpd(8) in which access(5) tables stand, whose FILTER or REDIRECT moves mail."""

SERVER_PARAMETERS = (
    *RESTRICTIONS,
    *("smtpd_milters", "non_smtpd_milters", "smtpd_milter_maps", "milter_default_action"),
    *("milter_command_timeout", "milter_content_timeout", "milter_protocol", "milter_macro_v"),
    *("milter_connect_macros", "milter_mail_macros", "milter_rcpt_macros"),
    *("receive_override_options", "content_filter", "smtpd_proxy_filter"),
    "smtpd_tls_security_level",
    *("smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_wrappermode"),
    *("smtpd_discard_ehlo_keywords", "smtpd_tls_chain_files", "smtpd_tls_cert_file"),
)

PARAMETERS = GLOBAL_PARAMETERS + CLIENT_PARAMETERS + LMTP_PARAMETERS + SERVER_PARAMETERS
"""All parameters that are read. A Postfix that does not know one leaves it out of its answer."""

TABLE_PARAMETERS = (
    *("smtp_requiretls_policy", "smtp_tls_policy_maps", "smtp_tls_per_site"),
    *("lmtp_requiretls_policy", "lmtp_tls_policy_maps"),
    *("transport_maps", "sender_dependent_relayhost_maps"),
    *("sender_dependent_default_transport_maps", "myorigin"),
    *("mailbox_transport_maps", "fallback_transport_maps"),
)
"""Parameters whose lookup tables, or files with names, are read (Debian: /etc/mailname)."""

DOMAIN_LISTS = (
    "mydestination",
    "virtual_alias_domains",
    "virtual_mailbox_domains",
    "relay_domains",
)
"""Parameters that list domains: of their tables the keys are read that are no addresses. By default
two of them are tables of addresses too, which may have many more."""

PROGRAMS = frozenset({"smtp", "smtpd", "cleanup", "pickup", "lmtp", "local", "trivial-rewrite"})
"""Daemons whose settings are read with their own ``-o``."""

LISTABLE = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "inline"})
"""Table types that ``postmap -s`` lists."""

_MOVES = re.compile(r"(?:^|\s)(?:FILTER\s+\S+:|REDIRECT\s+\S+@)", re.IGNORECASE)
"""A result of access(5) that sends mail elsewhere."""

_DUPLICATE = b": duplicate entry: "
"""What postmap says of a key that stands twice in a texthash table."""


Parameters = Mapping[str, str]
Entries = tuple[tuple[str, str], ...]


class PostconfError(RequiretlsMilterError):
    """Nothing is known of any Postfix: it is not there or does not answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Service:
    """A line of master.cf.

    ``overrides`` are its ``-o`` settings, macros not expanded. ``settings`` are
    those of :data:`PARAMETERS` as its daemon sees them; they are empty if the
    daemon is none of :data:`PROGRAMS`.
    """

    name: str
    type: str
    chroot: bool
    program: str
    overrides: Parameters = field(default_factory=dict)
    settings: Parameters = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the name that postconf uses: ``smtp/inet``."""
        return f"{self.name}/{self.type}"


@dataclass(frozen=True, slots=True)
class Postfix:
    """All that is read of one Postfix instance.

    ``settings`` are those of main.cf. ``defaults`` has every parameter that this
    version knows, with its default. ``tables`` has the entries of each
    ``type:name``, those of a cidr table in their order; None if the table
    cannot be read. ``domains`` has the keys of the tables in :data:`DOMAIN_LISTS`, without
    addresses, and in the same way what stands in files of such lists. ``doubled`` are the tables in
    whose text a key stands twice: postmap(1) takes these, and no daemon does. ``own_addresses`` are
    inet_interfaces and proxy_interfaces, ``unresolved`` the host names among
    them that have no address. ``inet_protocols`` are those that this host has.
    ``tag_action`` is what milter_header_checks say of the tag that :meth:`Postconf.read`
    was given; "" if nothing.
    ``moving`` are the tables of access(5) that have FILTER or REDIRECT. ``root`` is the directory
    that Postfix sees as ``/``. ``postmap`` is the command line of its postmap, "" if that is the
    usual one.
    """

    settings: Parameters
    defaults: Parameters = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    tables: Mapping[str, Entries | None] = field(default_factory=dict)
    domains: Mapping[str, tuple[str, ...] | None] = field(default_factory=dict)
    doubled: frozenset[str] = frozenset()
    own_addresses: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()
    inet_protocols: tuple[str, ...] = ("ipv4", "ipv6")
    tag_action: str = ""
    moving: frozenset[str] = frozenset()
    root: Path = Path("/")
    postmap: str = ""

    @property
    def version(self) -> str:
        """The version, such as ``3.11.7``."""
        return self.settings.get("mail_version", "")

    @property
    def queue(self) -> Path:
        """The queue directory as this program sees it; services in a chroot see it as ``/``."""
        return _below(self.root, self.settings.get("queue_directory", ""))

    def running(self, *programs: str) -> Iterator[Service]:
        """Find the services whose daemon is one of *programs*."""
        return (service for service in self.services if service.program in programs)

    def settings_of(self, name: str, program: str) -> Parameters:
        """The settings that a service of Postfix itself works by, which may have ``-o``.

        Args:
            name: of the service in master.cf.
            program: its daemon; another one of that name has settings that say nothing.
        """
        for service in self.running(program):
            if service.name == name and service.settings:
                return service.settings
        return self.settings


# ---------------------------------------------------------------- what postconf writes


def is_yes(settings: Parameters, name: str) -> bool:
    """Whether a boolean parameter exists and is ``yes``."""
    return settings.get(name, "").strip().lower() == "yes"


def parse_json(text: str) -> dict[str, str]:
    """Parse the answer of ``postconf -j``: each line is an object with one member.

    Raises:
        PostconfError: it is anything else.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise PostconfError(f"the answer of postconf -j is no JSON: {line[:80]!r}") from error
        if not isinstance(item, dict) or not all(isinstance(v, str) for v in item.values()):
            raise PostconfError(f"the answer of postconf -j is unexpected: {line[:80]!r}")
        found.update(item)
    return found


def parse_lines(text: str) -> dict[str, str]:
    """Parse the answer of a postconf without JSON: each line is ``name = value``."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals:
            found[name.strip()] = value.strip()
    return found


def parse_services(lines: Iterable[str], overrides: Parameters, compatible: bool) -> list[Service]:
    """Parse the services of ``postconf -M``, each with its settings of ``postconf -P``.

    Args:
        lines: the services, each with its eight fields.
        overrides: the settings, by ``name/type/parameter``.
        compatible: whether compatibility_level is at least 1, so that ``-`` in
            the field chroot means no.
    """
    own: dict[tuple[str, str], dict[str, str]] = {}
    for key, value in overrides.items():
        name, kind, parameter = key.rsplit("/", 2)
        own.setdefault((name, kind), {})[parameter] = value
    services = []
    for line in lines:
        fields = line.split(None, 7)
        if len(fields) < 8:
            continue
        name, kind, chroot = fields[0], fields[1], fields[4]
        services.append(
            Service(
                name=name,
                type=kind,
                chroot=chroot == "y" or (chroot == "-" and not compatible),
                program=PurePosixPath(fields[7].split(None, 1)[0]).name,
                overrides=own.get((name, kind), {}),
            )
        )
    return services


def is_compatible(level: str) -> bool:
    """Whether a compatibility_level is at least 1, so that services are not chrooted by default."""
    major = level.strip().partition(".")[0]
    return major.isdecimal() and int(major) >= 1


# ---------------------------------------------------------------- the programs


class Postconf:
    """postconf(1) and postmap(1) of one Postfix instance.

    Args:
        command: a program, or a command line such as ``chroot /srv/mta
            /usr/sbin/postconf``; paths of Postfix are then below that directory.
        config_dir: the directory of main.cf; "" is Postfix's own default.

    Raises:
        PostconfError: the command line cannot be parsed.
    """

    def __init__(self, command: str = "postconf", config_dir: str = "") -> None:
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise PostconfError(f"{command}: not a command line: {error}") from error
        if not self._command:
            raise PostconfError("the name of postconf is empty")
        self._config = ["-c", config_dir] if config_dir else []
        # postconf -x of 3.10 and later takes $config_directory in a value for the default one.
        self._expanding = ["-x", *(["-o", f"config_directory={config_dir}"] if config_dir else [])]
        self._json = False
        self._doubled: set[str] = set()
        self._read_already: dict[str, Entries | None] = {}
        self.root = Path(chroot_of(self._command) or "/")

    def read(self, tag: str = "") -> Postfix:
        """Read everything that is needed of the instance.

        Args:
            tag: the header field that is looked up in milter_header_checks; "" for none.

        Raises:
            PostconfError: there is no Postfix, or it does not answer.
        """
        self._json = self.understands_json()
        settings = self._settings()
        services = [self._complete(service) for service in self._services(settings)]
        protocols = _protocols_of_host()
        own, unresolved = self._own_addresses(settings, protocols)
        everywhere = [settings, *(service.settings for service in services)]
        return Postfix(
            settings=settings,
            defaults=self._values("-dx"),
            services=tuple(services),
            tables=self._tables(everywhere),
            domains=self._domains(everywhere),
            doubled=frozenset(self._doubled),
            own_addresses=own,
            unresolved=unresolved,
            inet_protocols=protocols,
            tag_action=self._action(tag, settings, services),
            moving=frozenset(self._moving(everywhere)),
            root=self.root,
            postmap=self.postmap_command,
        )

    def basics(self) -> Postfix:
        """Read what Postfix is, and where its queue is; nothing else.

        Raises:
            PostconfError: there is no Postfix, or it does not answer.
        """
        names = ("mail_version", "myhostname", "queue_directory")
        return Postfix(settings=parse_lines(self._output(*self._expanding, *names)), root=self.root)

    def understands_json(self) -> bool:
        """Whether this is Postfix 3.11 or later.

        Raises:
            PostconfError: there is no Postfix, or it does not answer.
        """
        answer = _output_if_done(self._run(self._command, "-j", "mail_version"))
        return answer is not None and answer.startswith("{")

    def _settings(self, overrides: Parameters | None = None) -> dict[str, str]:
        options = [
            word for name, value in (overrides or {}).items() for word in ("-o", f"{name}={value}")
        ]
        return self._values(*self._expanding, *options, *PARAMETERS)

    def _services(self, settings: Parameters) -> list[Service]:
        lines = self._values("-M").values() if self._json else self._output("-M").splitlines()
        compatible = is_compatible(settings.get("compatibility_level", ""))
        return parse_services(lines, self._values("-P"), compatible)

    def _complete(self, service: Service) -> Service:
        """Return the service with the settings that its daemon sees."""
        if service.program not in PROGRAMS:
            return service
        overrides = {**service.overrides, "service_name": service.name}
        return replace(service, settings=self._settings(overrides))

    def _values(self, *arguments: str) -> dict[str, str]:
        """Run postconf for a list of names with values."""
        if self._json:
            return parse_json(self._output("-j", *arguments))
        return parse_lines(self._output(*arguments))

    def _output(self, *arguments: str) -> str:
        """Run postconf, which must succeed."""
        done = self._run(self._command, *arguments)
        output = _output_if_done(done)
        if output is None:
            raise PostconfError(f"{shlex.join(self._command)}: {_last_words(done)}")
        return output

    def _run(self, command: Sequence[str], *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run postconf or postmap to its end, which may be a failure.

        Raises:
            PostconfError: it cannot be run, or takes too long.
        """
        where = _search_path()
        program = shutil.which(command[0], path=where)
        if program is None:
            raise PostconfError(f"no Postfix found: there is no program {command[0]}")
        try:
            return subprocess.run(
                [program, *command[1:], *self._config, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                env={**os.environ, "PATH": where, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired as error:
            raise PostconfError(f"{shlex.join(command)}: no answer in {TIMEOUT:g} s") from error
        except OSError as error:
            raise PostconfError(f"{shlex.join(command)}: {error.strerror}") from error

    @property
    def postmap_command(self) -> str:
        """The command line of postmap with an absolute path; "" for the usual one."""
        command = self._postmap()
        if command is None or (command == ["postmap"] and not self._config):
            return ""
        program = shutil.which(command[0], path=_search_path())
        return shlex.join([program, *command[1:], *self._config]) if program else ""

    def _postmap(self) -> list[str] | None:
        """Return the command line with postmap in the place of postconf; None if that is absent."""
        for index, word in enumerate(self._command):
            path = PurePosixPath(word)
            if path.name == "postconf":
                program = str(path.with_name("postmap")) if path.parts[1:] else "postmap"
                return [*self._command[:index], program, *self._command[index + 1 :]]
        return None

    # ------------------------------------------------------------ tables

    def _tables(self, all_settings: Sequence[Parameters]) -> dict[str, Entries | None]:
        version = all_settings[0].get("mail_version", "")
        names = dict.fromkeys(
            item
            for settings in all_settings
            for parameter in TABLE_PARAMETERS
            for item in split_list(settings.get(parameter, ""))
            if is_outside(item)
        )
        return {
            name: self._names(name, version) if name.startswith("/") else self._table(name)
            for name in names
        }

    def _domains(self, all_settings: Sequence[Parameters]) -> dict[str, tuple[str, ...] | None]:
        """Read the tables and files in lists of domains, and those that stand in such files."""
        version = all_settings[0].get("mail_version", "")
        waiting = [
            item
            for settings in all_settings
            for parameter in DOMAIN_LISTS
            for item in list_items(settings.get(parameter, ""), version)
        ]
        found: dict[str, tuple[str, ...] | None] = {}
        for item in waiting:  # which grows
            name = item.lstrip("!")
            if name in found or not is_outside(name):
                continue
            if name.startswith("/"):
                entries = self._names(name, version)
                waiting += (key for key, _ in entries or ())
            else:
                entries = self._listed(name)
            keys = None if entries is None else tuple(key for key, _ in entries if "@" not in key)
            found[name] = None if keys is not None and len(keys) > MAX_ENTRIES else keys
        return found

    def _action(self, tag: str, main: Parameters, services: Sequence[Service]) -> str:
        """Look up a header field as cleanup(8) does one that a milter adds; "" if nothing has it.

        Postfix itself interprets its patterns, and asks services that are alive.
        """
        command = self._postmap()
        if not tag or command is None:
            return ""
        cleanup = (one.settings for one in services if one.program == "cleanup")
        settings = next(cleanup, main)
        for item in split_list(settings.get("milter_header_checks", "")):
            found = _output_if_done(self._run(command, "-q", tag, item))
            if found and found.strip():
                return found.strip()
        return ""

    def _moving(self, all_settings: Sequence[Parameters]) -> Iterator[str]:
        """Find the tables of access(5) with FILTER or REDIRECT, as far as they can be read."""
        items = dict.fromkeys(
            item
            for settings in all_settings
            for parameter in RESTRICTIONS
            for item in access_tables(settings.get(parameter, ""))
        )
        return (item for item in items if any(map(_MOVES.search, self._results(item))))

    def _results(self, item: str) -> Iterator[str]:
        """Yield what a table may answer; of one of patterns its lines, patterns and all."""
        kind, name = split_table(item)
        if kind in ("regexp", "pcre", "cidr"):
            inside = name.startswith("{")
            text = name if inside else self._file(name) or ""
            yield from split_list(without_braces(text)) if inside else logical_lines(text)
        elif (static := static_result(item)) is not None:
            yield static
        else:
            yield from (result for _, result in self._listed(item) or ())

    def _table(self, item: str) -> Entries | None:
        """Read the entries of a table; None if that is not possible."""
        kind, name = split_table(item)
        entries = self._cidr(name) if kind == "cidr" else self._listed(item)
        return None if entries is None or len(entries) > MAX_ENTRIES else entries

    def _listed(self, item: str) -> Entries | None:
        """Read the entries of a table that postmap lists; None if that is not possible."""
        if item in self._read_already:
            return self._read_already[item]
        entries = self._read_already[item] = self._list(item)
        return entries

    def _list(self, item: str) -> Entries | None:
        kind, name = split_table(item)
        if kind not in LISTABLE:
            return None
        command = self._postmap()
        if command is None:
            return None
        try:
            done = self._run(command, "-s", f"{kind}:{name}")
        except PostconfError:  # a table that takes too long is one that cannot be read
            return None
        listing = _output_if_done(done)
        if listing is None:
            return None
        if kind == "texthash" and _DUPLICATE in done.stderr:
            self._doubled.add(item)
        pairs = (line.partition("\t") for line in listing.splitlines())
        # Sorted: the order of a hash table has no meaning and differs from run to run.
        entries = tuple(sorted((key, value.strip()) for key, tab, value in pairs if tab))
        return entries if len(entries) <= MAX_LISTED else None

    def _cidr(self, name: str) -> Entries | None:
        """Read the rules of a cidr_table(5), which postmap does not list."""
        if name.startswith("{"):
            return parse_cidr(without_braces(rule) for rule in split_list(without_braces(name)))
        text = self._file(name)
        return None if text is None else parse_cidr(_logical_lines(text))

    def _names(self, path: str, version: str) -> Entries | None:
        """Read the file that stands in a list of domains for what it holds."""
        text = self._file(path)
        if text is None:
            return None
        lines = _logical_lines(text)
        found = tuple((name, "") for line in lines for name in list_items(line, version))
        return found if len(found) <= MAX_ENTRIES else None

    def _file(self, path: str) -> str | None:
        """Read a file of Postfix's; None if it cannot be read or is too large."""
        try:
            with _below(self.root, path).open("rb") as file:
                content = file.read(MAX_TABLE_BYTES + 1)
        except OSError:
            return None
        if len(content) > MAX_TABLE_BYTES:
            return None
        return content.decode("utf-8", "replace")

    # ------------------------------------------------------------ addresses

    def _own_addresses(
        self, settings: Parameters, protocols: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return inet_interfaces and proxy_interfaces as addresses, and the names without any.

        Addresses of a protocol that inet_protocols leaves out are not Postfix's (own_inet_addr.c).
        """
        used = used_protocols(settings, protocols)
        local = _addresses_of_host()
        found: list[str] = []
        unresolved: list[str] = []
        for name in (
            *split_list(settings.get("inet_interfaces", "all")),
            *split_list(settings.get("proxy_interfaces", "")),
        ):
            if name == "all":
                found += local
            elif name == "loopback-only":
                found += (text for text in local if ipaddress.ip_address(text).is_loopback)
            else:
                addresses = _resolve(name)
                found += addresses
                if not addresses:
                    unresolved.append(name)
        mine = (text for text in found if f"ipv{ipaddress.ip_address(text).version}" in used)
        return tuple(dict.fromkeys(mine)), tuple(unresolved)


def used_protocols(settings: Parameters, of_host: Sequence[str]) -> tuple[str, ...]:
    """The protocols of inet_protocols that this host has (inet_proto_init()); () for none."""
    words = split_list(settings.get("inet_protocols", "all").lower())
    return tuple(name for name in of_host if name in words or "all" in words)


def access_tables(restrictions: str) -> Iterator[str]:
    """Yield the tables of access(5) in a list of restrictions: ``check_sender_access hash:x``."""
    words = split_list(restrictions)
    for word, table in itertools.pairwise(words):
        if word.startswith("check_") and word.endswith("_access") and ":" in table:
            yield table


COMMENTS_SINCE = (3, 8)
"""The version of Postfix in whose lists of domains a comment may stand."""


def is_outside(item: str) -> bool:
    """Whether an item of a list of domains is a table or a file, and no name."""
    return item.startswith("/") or (":" in item and not item.startswith("["))


def list_items(text: str, version: str) -> list[str]:
    """Split a list of domains, of main.cf or of a line of a file.

    From Postfix 3.8 on an item that begins with ``#`` ends the list: it and what follows is a
    comment (mystrtokq_cw(), with a warning in the log).
    """
    items = split_list(text)
    known = tuple(int(number) for number in re.findall(r"[0-9]+", version)[:2])
    if known and known < COMMENTS_SINCE:
        return items
    return list(itertools.takewhile(lambda item: not item.startswith("#"), items))


def parse_cidr(rules: Iterable[str]) -> Entries | None:
    """Parse rules of cidr_table(5) as (pattern, result); None if there is more than patterns."""
    entries = []
    for rule in rules:
        words = rule.split(None, 1)
        if len(words) < 2 or words[0].startswith("!") or words[0].lower() in ("if", "endif"):
            return None
        entries.append((words[0].strip("[]"), words[1].strip()))
    return tuple(entries)


def _search_path() -> str:
    return os.environ.get("PATH", os.defpath) + ":" + SYSTEM_PATH


def _logical_lines(text: str) -> Iterator[str]:
    """Split a table's file into lines, each with one blank for many."""
    return (" ".join(line.split()) for line in logical_lines(text))


def _below(root: Path, path: str) -> Path:
    """Return the path in this program's view of a path in Postfix's view."""
    return root / path.lstrip("/")


def _output_if_done(done: subprocess.CompletedProcess[bytes]) -> str | None:
    """Return what a program wrote; None if it failed."""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    """Say why a program failed: the last line that it wrote."""
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    last = lines[-1] if lines else f"exit status {done.returncode}"
    return without_secrets(re.sub(r"^\S*post\w+: (?:fatal: )?", "", last))[:300]


# ---------------------------------------------------------------- this host


def _protocols_of_host() -> tuple[str, ...]:
    """Find the protocols for which the kernel opens sockets, as Postfix does it."""
    found = []
    for name, family in (("ipv4", socket.AF_INET), ("ipv6", socket.AF_INET6)):
        try:
            socket.socket(family, socket.SOCK_STREAM).close()
        except OSError:
            continue
        found.append(name)
    return tuple(found)


def _addresses_of_host() -> list[str]:
    """List the addresses of this host's interfaces without link-local ones, which no MX can name.

    They come from proc(5), because Python's library cannot list them.
    """
    v4 = re.findall(r"\|-- (\S+)\n\s+/32 host LOCAL", _proc_net("fib_trie"))
    v6 = [bytes.fromhex(line.split()[0]) for line in _proc_net("if_inet6").splitlines()]
    addresses: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [
        *sorted({ipaddress.IPv4Address(text) for text in v4}),
        *sorted({ipaddress.IPv6Address(octets) for octets in v6}),
    ]
    return [str(address) for address in addresses if not address.is_link_local]


def _proc_net(name: str) -> str:
    """Read a file of proc(5); it is empty if the kernel does not have that protocol."""
    try:
        return (Path("/proc/net") / name).read_text()
    except OSError:
        return ""


def _resolve(name: str) -> list[str]:
    """Resolve a host name; an address, with or without brackets, resolves to itself."""
    bare = name.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(bare, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
