"""Where mail goes, by the mirror of many configurations and by Postfix's own trivial-rewrite(8).

Each configuration is read by ``mta import`` as it is on disk; a running Postfix resolves addresses
by it, as smtpd(8) has them resolved for the macros that a milter gets. Nothing is delivered.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from requiretls_milter.config import Mta
from requiretls_milter.config.routes import find
from requiretls_milter.mirror.postconf import Postconf
from requiretls_milter.mirror.resolve import ResolveError, resolve
from requiretls_milter.mirror.section import mirror
from tests.lab.postfix import Postfix, Tables
from tests.support.postfixes import mta_of

pytestmark = pytest.mark.lab

DOMAINS = (
    *("mine.test", "mta.mine.test", "localhost", "a.test", "sub.a.test", "deep.sub.a.test"),
    *("b.test", "sub.b.test", "v.test", "sub.v.test", "alias.test", "sub.alias.test"),
    *("remote.test", "sub.remote.test", "A.Test", "[127.0.0.1]", "[192.0.2.1]", "[IPv6:::1]"),
)
USERS = ("u", "u+x", "Boss", "owner-l", "owner-l+x", "postmaster+x", "u-x", "+x", '"a b"', '"u+x"')
OTHERS = ("remote.test!u@[192.0.2.1]", "u%remote.test@remote.test", "MAILER-DAEMON@a.test")
ROUTED = ("u%remote.test@mine.test", "a.test!u@mine.test", '"u@remote.test"@mine.test')
"""Local parts that name another address, in a domain that may be ours."""

ONE = ("a@remote.test",)
SENDERS = (
    *("a@remote.test", "", "Boss@mine.test", "boss+x@mine.test", "ann@a.test", "ann@sub.a.test"),
    *("root@mta.mine.test", "root@remote.test"),
)


@dataclass(frozen=True)
class Case:
    """A configuration: parameters of main.cf, and files beside it (``@ETC@``)."""

    main: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    senders: tuple[str, ...] = ONE


CASES: Mapping[str, Case] = {
    "defaults": Case({}),
    "null client": Case({"mydestination": "", "myorigin": "$mydomain", "relayhost": "[h.test]"}),
    "aliases by default": Case(
        {"virtual_alias_maps": "texthash:@ETC@/virtual", "mydestination": "mine.test"},
        {"virtual": "alias.test x\nu@alias.test u@remote.test\nroot admin@remote.test\n"},
    ),
    "aliases and a route for all": Case(
        {
            "virtual_alias_domains": "alias.test",
            "virtual_alias_maps": "inline:{ {u@alias.test = u@remote.test} }",
            "transport_maps": "inline:{ {* = smtp:[h.test]}, {u@alias.test = smtp:[x.test]} }",
        }
    ),
    "mailboxes by default": Case(
        {"virtual_mailbox_maps": "texthash:@ETC@/boxes", "virtual_transport": "lmtp:unix:x"},
        {"boxes": "u@v.test v/u\nv.test x\n"},
    ),
    "mailboxes elsewhere": Case(
        {"virtual_mailbox_domains": "v.test", "virtual_transport": "lmtp:inet:[192.0.2.7]:24"}
    ),
    "mailboxes for all": Case(
        {"virtual_mailbox_domains": "static:all", "mydestination": "mine.test"}
    ),
    "relayed with subdomains": Case(
        {
            "relay_domains": "a.test .b.test !sub.v.test v.test",
            "relay_transport": "relay:[h.test]",
            "parent_domain_matches_subdomains": "relay_domains",
        }
    ),
    "relayed without subdomains": Case(
        {
            "relay_domains": "texthash:@ETC@/relayed",
            "relay_transport": "relay:[h.test]",
            "parent_domain_matches_subdomains": "",
        },
        {"relayed": "a.test x\n.b.test y\nu@v.test z\n"},
    ),
    "relayed in a table with subdomains": Case(
        {"relay_domains": "!texthash:@ETC@/not, a.test", "relay_transport": "relay:[h.test]"},
        {"not": "sub.a.test x\n"},
    ),
    "all but one": Case({"mydestination": "!v.test, static:all"}),
    "a comment in a list": Case(
        {"mydestination": "mine.test # v.test b.test", "relay_domains": "@ETC@/names, [192.0.2.1]"},
        {"names": "a.test # sub.b.test\nalias.test\n"},
    ),
    "a file of files": Case(
        {"mydestination": "@ETC@/names, $myhostname"},
        {
            "names": "# ours\ntexthash:@ETC@/t\n!b.test\n  @ETC@/more\n",
            "t": "a.test x\n",
            "more": "v.test b.test\n",
        },
    ),
    "routes": Case(
        {
            "transport_maps": "inline:{ {a.test = relay:[a.h.test]}, {.b.test = smtp:[b.h.test]},"
            " {u@a.test = smtp:[u.h.test]}, {Boss@a.test = smtp:[B.h.test]},"
            " {[192.0.2.1] = relay:[lit.test]}, {u@[127.0.0.1] = smtp:[own.test]} }",
            "recipient_delimiter": "+",
        }
    ),
    "two delimiters": Case(
        {
            "transport_maps": "inline:{ {u@a.test = smtp:[u.test]}, {owner@a.test = smtp:[o.test]},"
            " {owner-l@b.test = smtp:[l.test]}, {postmaster@a.test = smtp:[p.test]} }",
            "recipient_delimiter": "-+",
        }
    ),
    "routes with subdomains": Case(
        {
            "transport_maps": "inline:{ {a.test = relay:[a.h.test]}, {.b.test = smtp:[b.h.test]},"
            " {sub.a.test = :} }",
            "parent_domain_matches_subdomains": "transport_maps",
        }
    ),
    "routes behind one another": Case(
        {
            "transport_maps": "inline:{ {a.test = relay:[one.test]} }, inline:{ {a.test = smtp:[no."
            "test]}, {sub.a.test = relay:[two.test]}, {* = smtp:[star.test]} }",
            "relay_domains": "b.test",
            "virtual_mailbox_domains": "v.test",
            "mydestination": "mine.test",
        }
    ),
    "a route for all that keeps the transport": Case(
        {
            "transport_maps": "inline:{ {* = :[star.test]} }",
            "relayhost": "[h.test]",
            "mydestination": "mine.test",
            "relay_domains": "b.test",
            "virtual_mailbox_domains": "v.test",
        }
    ),
    "a static route": Case({"transport_maps": "static::[s.test]", "relayhost": "[h.test]"}),
    "routes without a part": Case(
        {
            "transport_maps": "inline:{ {a.test = relay}, {b.test = :[n.test]:587},"
            " {v.test = smtp:}, {remote.test = :} }",
            "default_transport": "smtp:[def.test]",
            "relayhost": "[h.test]",
            "relay_domains": "remote.test",
            "relay_transport": "relay:[rel.test]",
        }
    ),
    "no delivery": Case(
        {
            "transport_maps": "inline:{ {a.test = error:5.1.2 gone}, {b.test = discard:},"
            " {v.test = retry:4.3.2 later}, {remote.test = error} }"
        }
    ),
    "relays by sender": Case(
        {
            "sender_dependent_relayhost_maps": "inline:{ {boss@mine.test = [boss.test]:587},"
            " {@a.test = [a.h.test]}, {@mine.test = DUNNO}, {<> = [null.test]},"
            " {root = [root.test]} }",
            "relayhost": "[h.test]",
            "recipient_delimiter": "+",
            "mydestination": "$myhostname mine.test",
        },
        senders=SENDERS,
    ),
    "transports by sender": Case(
        {
            "sender_dependent_default_transport_maps": "inline:{ {boss@mine.test = relay:[b.test]:"
            "587}, {@a.test = relay}, {@mine.test = dunno}, {<> = relay:[null.test]} }",
            "relayhost": "[h.test]",
            "relay_domains": "b.test",
        },
        senders=SENDERS,
    ),
    "any sender": Case(
        {
            "sender_dependent_default_transport_maps": "static:relay:[s.test]",
            "sender_dependent_relayhost_maps": "inline:{ {@a.test = [r.test]} }",
        },
        senders=SENDERS,
    ),
    "a key for the null sender": Case(
        {
            "empty_address_relayhost_maps_lookup_key": "null@x",
            "sender_dependent_relayhost_maps": "inline:{ {null@x = [n.test]}, {<> = [no.test]} }",
        },
        senders=SENDERS,
    ),
    "own mail elsewhere": Case(
        {"local_transport": "lmtp:inet:[192.0.2.7]:24", "mydestination": "mine.test"}
    ),
    "macros": Case(
        {
            "hub": "h.test",
            "env": "prod",
            "empty": "",
            "relayhost": "${env?{[${hub}]:587}:{}}",
            "transport_maps": "${empty?{inline:{a.test=relay:[no.test]}}:{inline:{ {a.test = relay:"
            "[yes.test]} }}}",
            "default_transport": "${{$compatibility_level} >= {3.6} ? {relay} : {smtp}}",
        }
    ),
    "names in any case": Case(
        {
            "mydestination": "MINE.Test A.TEST",
            "relay_domains": "B.Test",
            "relay_transport": "relay:[h.test]",
        }
    ),
}


def at_random(seed: int) -> Case:
    """A configuration whose classes, routes and tables by sender are thrown by dice."""
    dice = random.Random(seed)  # noqa: S311 - to be repeated
    files: dict[str, str] = {}
    names = (
        *("a.test", ".a.test", "sub.a.test", "b.test", ".b.test", "v.test", "sub.v.test"),
        *("mine.test", "alias.test", "A.TEST", "!a.test", "!sub.a.test", "!b.test"),
    )

    def some(most: int) -> list[str]:
        return dice.choices(names, k=dice.randint(0, most))

    def beside(text: str) -> str:
        files[f"file{len(files)}"] = text
        return f"@ETC@/file{len(files) - 1}"

    def domains() -> str:
        items = some(3)
        if dice.random() < 0.3:
            keys = dict.fromkeys(name.lstrip("!").lower() for name in some(3))
            table = beside("".join(f"{key} x\n" for key in keys))
            items.insert(0, f"{dice.choice(('', '!'))}texthash:{table}")
        if dice.random() < 0.2:
            items.append(dice.choice(("", "!")) + beside("\n".join(some(3)) + "\n"))
        return " ".join(items)

    def hop() -> str:
        return dice.choice(("[h1.test]", "[h2.test]", "h.test", "[h.test]:587", "192.0.2.5"))

    def route() -> str:
        transport = dice.choice(("smtp", "relay", "lmtp", "local", "virtual", "discard", ""))
        return f"{transport}:{hop() if dice.random() < 0.6 else ''}"

    def table(keys: Sequence[str], value: Callable[[], str]) -> str:
        entries = {dice.choice(keys): value() for _ in range(dice.randint(1, 4))}
        return f"inline:{{ {', '.join(f'{{{key} = {text}}}' for key, text in entries.items())} }}"

    routed = (
        *("a.test", ".a.test", "sub.a.test", ".test", "test", "*", "u@a.test", "u+x@a.test"),
        *("boss@b.test", "[127.0.0.1]", "[192.0.2.1]", "u@[127.0.0.1]", "mine.test", "alias.test"),
    )
    sending = ("boss@mine.test", "@mine.test", "@a.test", "<>", "u@mine.test", "boss")
    possible: Mapping[str, Callable[[], str]] = {
        "relay_domains": domains,
        "virtual_mailbox_domains": domains,
        "virtual_alias_domains": domains,
        "parent_domain_matches_subdomains": lambda: dice.choice(("", "transport_maps")),
        "transport_maps": lambda: f"{table(routed, route)}, {table(routed, route)}",
        "relayhost": hop,
        "default_transport": lambda: dice.choice(("relay", f"relay:{hop()}", "error:no")),
        "relay_transport": lambda: dice.choice(("smtp", "relay:", f"smtp:{hop()}")),
        "local_transport": lambda: dice.choice(("smtp", f"lmtp:inet:{hop()}", "error:no")),
        "virtual_transport": lambda: dice.choice(("smtp", f"lmtp:{hop()}", "virtual")),
        "recipient_delimiter": lambda: dice.choice(("+", "-", "+-")),
        "sender_dependent_relayhost_maps": lambda: table(sending, hop),
        "sender_dependent_default_transport_maps": lambda: table(sending, lambda: f"relay:{hop()}"),
    }
    chosen = {name: make() for name, make in possible.items() if dice.random() < 0.4}
    return Case({"mydestination": f"{domains()} $myhostname", **chosen}, files, SENDERS[:5])


class ResolvingPostfix(Postfix):
    """A Postfix with the configuration of a case, and without any port."""

    def __init__(self, root: Path, case: Case) -> None:
        """Plan it."""
        nothing = Path("/dev/null")
        super().__init__(root, "resolving", "127.0.0.1", certificate=nothing, ca_file=nothing)
        self._files = case.files
        self.configure(
            {
                "myhostname": "mta.mine.test",
                "mydomain": "mine.test",
                "mydestination": "$myhostname, localhost.$mydomain, localhost",
                "proxy_interfaces": "",
                **{name: self._placed(value) for name, value in case.main.items()},
            }
        )

    def _placed(self, text: str) -> str:
        return text.replace("@ETC@", self.inside("etc"))

    def _write_tables(self, tables: Tables) -> None:
        del tables
        self._write_files({name: self._placed(text) for name, text in self._files.items()})

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.directory / "etc/master.cf"
        services = re.sub(r"^\S+ inet .*\n(?: .*\n)*", "", path.read_text(), flags=re.MULTILINE)
        path.write_text(services)

    def _started(self) -> bool:
        return (self.queue_directory / "private/rewrite").exists()

    def way(self, sender: str, recipient: str) -> str:
        """Where it sends mail: ``local``, ``nowhere``, or a transport and a next hop."""
        try:
            to = resolve(self.queue_directory, sender, recipient)
        except ResolveError as error:
            return f"nowhere: {error}"
        return f"{to.transport}:{to.nexthop.lower()}"


def ours(mta: Mta, sender: str, recipient: str) -> str:
    to = find(mta, recipient, sender)
    return "local:" if to is None else f"{to.transport}:{to.nexthop.lower()}"


def is_local(mta: Mta, way: str) -> bool:
    return way.partition(":")[0] in mta.local_transports


def usual(way: str) -> str:
    """The way with one name for the two transports that are set up alike."""
    return way.removeprefix("relay:").removeprefix("smtp:")


@pytest.mark.parametrize("name", CASES)
def test_the_mirror_sends_mail_where_postfix_does(postfix_root: Path, name: str) -> None:
    compare(postfix_root, CASES[name])


@pytest.mark.parametrize("seed", range(16))
def test_so_it_does_by_any_configuration(postfix_root: Path, seed: int) -> None:
    compare(postfix_root, at_random(seed))


def compare(root: Path, case: Case) -> None:
    """Have both resolve addresses."""
    postfix = ResolvingPostfix(root, case)
    try:
        postfix.start()
        made = mirror(Postconf(f"chroot {root} /usr/sbin/postconf", postfix.inside("etc")).read())
        mta = mta_of(made)
        recipients = [f"{user}@{domain}" for domain in DOMAINS for user in USERS]
        different = []
        for recipient in (*recipients, *OTHERS, *ROUTED):
            for sender in case.senders:
                theirs, own = postfix.way(sender, recipient), ours(mta, sender, recipient)
                both_local = is_local(mta, theirs) and is_local(mta, own)
                if not both_local and usual(theirs) != usual(own):
                    different.append(f"{sender} {recipient}: {theirs}, mirrored as {own}")
        assert not different, (case, made.warnings)
    finally:
        postfix.stop()
