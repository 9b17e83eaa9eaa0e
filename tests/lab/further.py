"""Scenarios that were not recorded: the rest of the vocabulary, and random words of it.

What Postfix does with them only Postfix can say, so they have no ``expected``: a test sends
them through the lab's Postfix and asks afterwards whether it did what was forecast.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from tests.lab.lab import MYDOMAIN
from tests.lab.labconfig import told_apart
from tests.support import addresses
from tests.support.scenario import Domain, Message, Mx, Scenario, Server, Sts, Zone, load

ORDINARY = Message(requiretls=False)
TLS_OPTIONAL = Message(requiretls=False, tls_required_no=True)
BOUNCE = Message(sender="")

GOOD = Server()
NO_REQUIRETLS = Server(requiretls="none")
NO_STARTTLS = Server(starttls="none")
NO_HANDSHAKE = Server(handshake="garbage")
REFUSES = Server(starttls_reply="454 4.7.0 TLS not available")
WRONG_NAME = Server(cert="wrongname")


@dataclass
class _Collection:
    """Scenarios, each written in a line."""

    prefix: str
    scenarios: list[Scenario] = field(default_factory=list)

    def add(
        self,
        name: str,
        *mx: Mx,
        profile: str = "dane/enforce",
        message: Message | None = None,
        **domain: Any,
    ) -> None:
        """A domain of these MX hosts (one good one if none is given)."""
        self.scenarios.append(
            told_apart(
                Scenario(
                    f"{self.prefix}-{name}",
                    profile=profile,
                    domains=(Domain(mx=mx or (Mx(),), **domain),),
                    message=message or Message(),
                )
            )
        )

    def each(
        self, name: str, attribute: str, words: Iterable[str], *, profile: str = "dane/enforce"
    ) -> None:
        """One scenario for each word that *attribute* of the server may have."""
        for word in words:
            server = Server(**{attribute: word})  # type: ignore[arg-type]
            short = word.split(" ", maxsplit=1)[0]
            self.add(f"{name}-{short}", Mx(server=server), profile=profile)


def _in_order(*servers: Server, **mx: Any) -> tuple[Mx, ...]:
    return tuple(Mx(pref=10 * n, server=item, **mx) for n, item in enumerate(servers, start=1))


def further() -> tuple[Scenario, ...]:
    """Every word of the vocabulary that no recorded scenario has, and how they meet."""
    made = _Collection("x")
    _names(made)
    _own_name(made)
    _addresses(made)
    _tlsa(made)
    _dialogues(made)
    _certificates(made)
    _several(made)
    _mta_sts(made)
    _needs(made)
    return tuple(made.scenarios)


def _names(made: _Collection) -> None:
    zones: tuple[Zone, ...] = ("sig", "uns", "bogus", "lame", "dead", "sender")
    for zone in zones:
        for kind in ("implicit", "cname"):
            made.add(f"{kind}-{zone}", Mx(zone=zone), kind=kind, zone=zone)
    made.add("mx-dead", zone="dead")
    made.add("nodata-uns", kind="nodata", zone="uns")
    made.add("implicit-default", kind="implicit", profile="dane/default", message=TLS_OPTIONAL)
    failing: tuple[Zone, ...] = ("bogus", "lame", "dead")
    for zone in failing:
        made.add(f"host-{zone}", Mx(zone=zone))
        made.add(f"host-{zone}-good", Mx(zone=zone), Mx(pref=20))
    made.add("host-noaddr-nx", Mx(host="noaddr"), Mx(pref=20, host="nx"))
    made.add("host-noaddr-good", Mx(host="noaddr"), Mx(pref=20))
    made.add("host-nx-noreq", Mx(host="nx"), Mx(pref=20, server=NO_REQUIRETLS))
    made.add("host-lame-nx", Mx(zone="lame"), Mx(pref=20, host="nx"))
    made.add("host-nx-lame", Mx(host="nx"), Mx(pref=20, zone="lame"))
    made.add("host-good-self", Mx(), Mx(pref=20, host="self"))
    made.add("host-nx-self", Mx(host="nx"), Mx(pref=20, host="self"))
    made.add("self-implicit", Mx(host="self"), kind="implicit")
    made.add("self-brackets", Mx(host="self"), nexthop="[@MX1@]")
    made.add("self-address", Mx(tlsa=()), nexthop=f"[{addresses.FRONT}]")
    made.add("brackets", Mx(zone="uns", tlsa=()), zone="uns", nexthop="[@MX1@]")
    made.add("route", zone="uns", nexthop="@DOM@")


UTF8 = ("SMTPUTF8",)
IN_HEADER = Message(parameters=UTF8, headers=("X-Note: gr\u00fcn",))
NEEDS_UTF8 = {
    "header": IN_HEADER,
    "sender": Message(parameters=UTF8, sender="gr\u00fcn@sender.test"),
    "rcpt": Message(parameters=UTF8, rcpts=("gr\u00fcn",)),
    "one-rcpt": Message(parameters=UTF8, rcpts=("u", "gr\u00fcn")),
    "unused": Message(parameters=UTF8),
    "unasked": Message(headers=("X-Note: gr\u00fcn",)),
    "ordinary": replace(IN_HEADER, requiretls=False),
    "optional": replace(IN_HEADER, requiretls=False, tls_required_no=True),
}
LARGE = Message(body="0123456789\n" * 1000, declared=True)


def _needs(made: _Collection) -> None:
    """What the message itself needs of the server."""
    without = Server(smtputf8="none")
    for name, message in NEEDS_UTF8.items():
        made.add(f"utf8-{name}", message=message)
        made.add(f"utf8-{name}-none", Mx(server=without), message=message)
    for where in ("plain", "tls"):
        only = Server(smtputf8=where)
        made.add(f"utf8-{where}", Mx(server=only), message=IN_HEADER)
        made.add(
            f"utf8-{where}-may", Mx(server=only), message=IN_HEADER, profile="may/opportunistic"
        )
        clear = replace(only, starttls="none")
        made.add(f"utf8-{where}-clear", Mx(server=clear), message=IN_HEADER)
        made.add(
            f"utf8-{where}-clear-may",
            Mx(server=clear),
            message=IN_HEADER,
            profile="may/opportunistic",
        )
    for name, first in {
        "none": without,
        "plain": Server(smtputf8="plain"),
        "noreq": NO_REQUIRETLS,
        "nostarttls": NO_STARTTLS,
        "refused": Server(banner="554 5.3.2 x"),
        "wrongname": WRONG_NAME,
        "handshake": NO_HANDSHAKE,
    }.items():
        made.add(f"utf8-after-{name}", *_in_order(first, GOOD), message=IN_HEADER)
        made.add(f"utf8-none-after-{name}", *_in_order(first, without), message=IN_HEADER)
        made.add(f"utf8-before-{name}", *_in_order(without, first), message=IN_HEADER)
        made.add(
            f"utf8-without-{name}", Mx(server=replace(first, smtputf8="none")), message=IN_HEADER
        )
        made.add(f"size-without-{name}", Mx(server=replace(first, size="1000")), message=LARGE)
    for size in ("none", "", "0", "1000", "100000", "x"):
        server = Server(size=size)
        made.add(f"size-{size or 'empty'}", Mx(server=server), message=LARGE)
        made.add(
            f"size-{size or 'empty'}-tls", Mx(server=replace(GOOD, size_tls=size)), message=LARGE
        )
    own = f"mta.{MYDOMAIN}"
    for name, server in {
        "own": Server(smtputf8="none", name=own),
        "helo": Server(ehlo="500 5.5.1 no EHLO"),
        "helo-tls": Server(ehlo_tls="500 5.5.1 no EHLO"),
        "plain-noreq": Server(smtputf8="plain", requiretls="none"),
        "plain-wrongname": Server(smtputf8="plain", cert="wrongname"),
        "refuses": replace(REFUSES, smtputf8="none"),
        "lost-tls": Server(smtputf8="plain", ehlo_tls="close"),
    }.items():
        made.add(f"utf8-at-{name}", Mx(server=server), message=IN_HEADER)
        made.add(
            f"utf8-at-{name}-sts",
            Mx(server=server, zone="uns", tlsa=()),
            zone="uns",
            sts=Sts(),
            profile="sts/enforce",
            message=IN_HEADER,
        )
    made.add("size-empty-lifted", Mx(server=Server(size="1000", size_tls="")), message=LARGE)
    made.add("size-zero-lifted", Mx(server=Server(size="1000", size_tls="0")), message=LARGE)
    made.add(
        "size-clear",
        Mx(server=Server(size="1000", starttls="none")),
        message=LARGE,
        profile="may/opportunistic",
    )
    small = Server(size="1000")
    made.add("size-lifted", Mx(server=replace(small, size_tls="100000")), message=LARGE)
    made.add("size-lifted-none", Mx(server=replace(small, size_tls="none")), message=LARGE)
    made.add("size-small-good", *_in_order(small, GOOD), message=LARGE)
    made.add("size-good-small", *_in_order(NO_REQUIRETLS, small), message=LARGE)
    made.add("size-may", Mx(server=small), message=replace(LARGE, requiretls=False))
    for profile in ("dane/enforce", "may/opportunistic"):
        made.add(
            f"transport-{profile.partition('/')[0]}",
            Mx(server=Server(transport="none")),
            profile=profile,
            message=Message(
                parameters=("BODY=8BITMIME", "RET=FULL", "ENVID=abc"), body="gr\u00fcn\n"
            ),
        )


def _own_name(made: _Collection) -> None:
    """Servers that call themselves by the MTA's own name: a loop, at the best of them."""
    own = Mx(server=Server(name=f"mta.{MYDOMAIN}"))
    second = replace(own, pref=20)
    made.add("own", own)
    made.add("own-case", Mx(server=Server(name=f"MTA.{MYDOMAIN.title()}")))
    made.add("own-clear", Mx(server=Server(name=f"mta.{MYDOMAIN}", starttls="none")))
    made.add("own-subdomain", Mx(server=Server(name=f"mta.{MYDOMAIN}.example")))
    made.add("own-good", own, Mx(pref=20))
    made.add("own-brackets", own, nexthop="[@MX1@]")
    made.add("own-implicit", own, kind="implicit")
    made.add("own-ordinary", own, message=ORDINARY)
    made.add("own-may", own, profile="may/enforce")
    made.add("noreq-own", Mx(server=NO_REQUIRETLS), second)
    made.add("refused-own", Mx(addr="refused"), second)
    made.add("nx-own", Mx(host="nx"), second)
    made.add("own-own", Mx(server=NO_REQUIRETLS), second, replace(own, pref=30))
    made.add("noreq-own-noreq", Mx(server=NO_REQUIRETLS), second, Mx(pref=30, server=NO_HANDSHAKE))


def _addresses(made: _Collection) -> None:
    for where in ("noroute", "blackhole", "refused"):
        made.add(f"{where}-noreq", Mx(addr=where), Mx(pref=20, server=NO_REQUIRETLS))
        made.add(f"noreq-{where}", Mx(server=NO_REQUIRETLS), Mx(pref=20, addr=where))
    made.add("noroute", Mx(addr="noroute"))
    made.add("noroute-may", Mx(addr="noroute", tlsa=()), profile="may/opportunistic")
    refused = [Mx(pref=10 * n, addr="refused") for n in range(1, 7)]
    made.add("fifth-of-5", *refused[:4], Mx(pref=90))
    made.add("sixth-of-6", *refused[:5], Mx(pref=90))


def _tlsa(made: _Collection) -> None:
    broken = ("3 1 1 short", "3 1 2 short", "2 1 1 short", "2 0 0 garbage", "3 1 3 match")
    other = ("3 0 0 match", "2 0 1 ca", "2 0 2 ca", "2 1 0 ca", "2 0 0 ca", "2 1 1 match")
    for record in (*broken, *other, "3 1 255 match", "4 1 1 match", "3 2 1 match"):
        made.add("tlsa-" + record.replace(" ", ""), Mx(tlsa=(record,)))
    for record in broken[:2]:
        name = record.replace(" ", "")
        made.add(f"tlsa-only-{name}", Mx(tlsa=(record,)), profile="dane-only/enforce")
        made.add(f"tlsa-bad-{name}", Mx(tlsa=(record, "3 1 1 bad")))
    made.add("tlsa-digests", Mx(tlsa=("3 1 2 bad", "3 1 1 match")))
    made.add("tlsa-ee-ta", Mx(tlsa=("3 1 1 bad", "2 1 1 ca")))
    made.add("tlsa-cname-bad", Mx(tlsa=("cname-sig:3 1 1 bad",)))
    for how in ("deleg-lame", "deleg-dead", "cname-bogus"):
        made.add(f"tlsa-{how}", Mx(tlsa=(how,)))
        made.add(f"tlsa-{how}-good", Mx(tlsa=(how,)), Mx(pref=20))
        made.add(f"tlsa-noreq-{how}", Mx(server=NO_REQUIRETLS), Mx(pref=20, tlsa=(how,)))
        made.add(f"tlsa-{how}-no", Mx(tlsa=(how,)), message=TLS_OPTIONAL)
    for alias in ("sig", "uns", "bogus", "lame"):
        for at in ("qname", "rname"):
            for zone in ("sig", "uns"):
                made.add(f"alias-{alias}-{at}-{zone}", Mx(alias=alias, tlsa_at=at, zone=zone))


def _dialogues(made: _Collection) -> None:
    made.each("banner", "banner", ("450 4.3.2 wait", "521 5.3.2 no", "354 what"))
    made.each("ehlo", "ehlo", ("451 4.3.0 later", "550 5.7.1 no"))
    made.each("tlsehlo", "ehlo_tls", ("close", "hang", "421 4.3.2 bye", "500 5.5.1 what"))
    made.each("tlsehlo", "ehlo_tls", ("451 4.3.0 later",), profile="dane/opportunistic")
    made.each("reply", "starttls_reply", ("421 4.7.0 bye", "354 what", "500 5.5.2 no"))
    made.each("offer", "requiretls", _OFFERS)
    made.each("clear", "starttls_reply", ("close", "421 4.7.0 bye"), profile="none/opportunistic")
    made.each("clear", "ehlo_tls", ("hang",), profile="none/disable")
    made.add("tlsehlo-bad", Mx(tlsa=("3 1 1 bad",), server=Server(ehlo_tls="close")))
    made.add("tlsehlo-unusable", Mx(tlsa=("3 1 99 match",), server=Server(ehlo_tls="close")))
    made.add("tlsehlo-noreq", *_in_order(Server(ehlo_tls="close"), NO_REQUIRETLS))
    made.add("noreq-tlsehlo", *_in_order(NO_REQUIRETLS, Server(ehlo_tls="421 4.3.2 bye")))
    made.add("old-unusable", Mx(tlsa=("3 1 99 match",), server=Server(handshake="oldproto")))
    made.add("old-clear", Mx(server=Server(handshake="oldproto")), profile="may/opportunistic")
    made.add("bounce-noreq", Mx(server=NO_REQUIRETLS), message=BOUNCE)
    made.add("bounce-bad", Mx(tlsa=("3 1 1 bad",)), message=BOUNCE)


_OFFERS = ("none", "plain", "tls", "both", "tls-lower", "tls-param")
_CERTIFICATES = ("match", "wrongname", "expired", "selfsigned", "untrusted", "cnonly")


def _certificates(made: _Collection) -> None:
    for certificate in _CERTIFICATES:
        server = Server(cert=certificate)  # type: ignore[arg-type]
        for profile in ("verify/enforce", "secure/enforce"):
            made.add(f"{profile[:6]}-{certificate}", Mx(server=server), profile=profile)
        made.add(f"ta-{certificate}", Mx(tlsa=("2 1 1 ca",), server=server))
        made.add(
            f"ta-nochain-{certificate}",
            Mx(tlsa=("2 0 0 ca",), server=replace(server, chain=False)),
        )


def _several(made: _Collection) -> None:
    servers = {
        "good": GOOD,
        "noreq": NO_REQUIRETLS,
        "nostarttls": NO_STARTTLS,
        "nohandshake": NO_HANDSHAKE,
        "refuses": REFUSES,
    }
    for name, server in servers.items():
        # of equal preference Postfix takes any first: here they are all alike
        made.add(f"equal-{name}", Mx(server=server), Mx(server=server))
    made.add("equal-noreq-good", Mx(server=NO_REQUIRETLS), Mx(server=NO_REQUIRETLS), Mx(pref=20))
    wrong = (WRONG_NAME, NO_REQUIRETLS, NO_HANDSHAKE)
    for first in range(3):
        turned = wrong[first:] + wrong[:first]
        made.add(f"three-{first}", *_in_order(*turned, tlsa=("2 1 1 ca",)))


def _mta_sts(made: _Collection) -> None:
    def sts(name: str, *mx: Mx, patterns: tuple[str, ...], **more: Any) -> None:
        for style in ("old", "new"):
            policy = Sts(style=style, patterns=patterns)
            made.add(f"{style}-{name}", *mx, zone="uns", profile="sts/enforce", sts=policy, **more)

    unsigned: dict[str, Any] = {"zone": "uns", "tlsa": ()}
    three = _in_order(NO_REQUIRETLS, WRONG_NAME, NO_STARTTLS, **unsigned)
    sts("three-1", *three, patterns=("@MX1@",))
    sts("three-2", *three, patterns=("@MX2@",))
    sts("three-3", *three, patterns=("@MX3@",))
    sts("three-13", *three, patterns=("@MX1@", "@MX3@"))
    sts("three-all", *three, patterns=("*.@DOM@",))
    good = Mx(**unsigned)
    sts("nochain", replace(good, server=Server(chain=False)), patterns=("@MX1@",))
    sts("alias", replace(good, alias="uns"), patterns=("@MX1@",))
    sts("cname", good, patterns=("@MX1@",), kind="cname")
    sts("implicit", good, patterns=("@DOM@",), kind="implicit")
    nowhere = ("mail.elsewhere.uns.test",)
    sts("skipped-noaddr", replace(good, host="noaddr"), Mx(pref=20, **unsigned), patterns=nowhere)
    sts("skipped-lame", Mx(zone="lame"), Mx(pref=20, **unsigned), patterns=nowhere)
    sts("mismatch-dane", Mx(tlsa=("3 1 1 bad",)), patterns=("@MX1@",))
    sts("ordinary", *three, patterns=("@MX3@",), message=ORDINARY)
    sts("optional", *three, patterns=("@MX2@",), message=TLS_OPTIONAL)


# ---------------------------------------------------------------- at random

_T = TypeVar("_T")

_PROFILES = tuple(
    name for name in load().profiles if not name.endswith(("backoff1", "badpolicy", "soft5xx=no"))
)
"""All but those with a parameter that the milter does not mirror, and one that fails always."""

_RECORDS = (
    *("3 1 1 match", "3 1 1 bad", "3 1 2 match", "3 0 1 match", "3 1 0 match", "3 0 0 match"),
    *("2 1 1 ca", "2 0 1 ca", "2 0 0 ca", "2 1 1 match", "0 1 1 ca", "1 1 1 match"),
    *("3 1 1 short", "3 1 99 match", "3 9 1 match", "3 0 0 garbage", "3 1 255 match"),
)
_DETOURS = ("cname-uns:3 1 1 match", "cname-sig:3 1 1 match", "cname-bogus", "deleg-lame")


def at_random(seed: int, count: int) -> tuple[Scenario, ...]:
    """*count* scenarios of random words; the same *seed* makes the same ones.

    Only what has one outcome: MX hosts of different preferences, and no server that says no
    after the EHLO inside TLS.
    """
    made = _Collection(f"r{seed}")
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for number in range(count):
        _add_random(made, dice, str(number))
    return tuple(made.scenarios)


def _add_random(made: _Collection, dice: random.Random, name: str) -> None:
    profile = dice.choice(_PROFILES)
    with_sts = profile.startswith("sts") and dice.random() < 0.8
    signed: tuple[Zone, ...] = ("sig", "sig", "uns", "sender")
    policies: tuple[Zone, ...] = ("uns", "sig")
    zone = dice.choice(policies if with_sts else signed)
    kind = _mostly(dice, "mx", "mx", "cname", "implicit")
    number = 1 if kind == "implicit" else dice.choice((1, 1, 2, 2, 3))
    hosts = list(_random_hosts(dice, zone, number))
    if kind == "implicit":
        hosts = [replace(hosts[0], zone=zone, alias=None, host="normal")]
    last = f"@MX{number}@"
    patterns = dice.choice((("@MX1@",), ("*.@DOM@",), ("@MX1@", last), (last,), ("nowhere.test",)))
    style = dice.choice(("old", "new"))
    made.add(
        name,
        *hosts,
        profile=profile,
        message=_needing(dice, _mostly(dice, Message(), ORDINARY, TLS_OPTIONAL, BOUNCE)),
        zone=zone,
        kind=kind,
        sts=Sts(style=style, patterns=patterns) if with_sts else None,  # type: ignore[arg-type]
    )


def _needing(dice: random.Random, message: Message) -> Message:
    """The same message, and at times it needs something of the server."""
    if dice.random() < 0.2:
        message = replace(message, parameters=UTF8, headers=IN_HEADER.headers)
    if dice.random() < 0.2:
        message = replace(message, body=LARGE.body, declared=True)
    return message


def _random_hosts(dice: random.Random, zone: Zone, number: int) -> Iterator[Mx]:
    for place in range(1, number + 1):
        missing = _mostly(dice, False, False, True)
        tlsa: tuple[str, ...] = ("3 1 1 match",)
        if dice.random() < 0.5:
            choices = ((), (dice.choice(_RECORDS),), tuple(dice.sample(_RECORDS, 2)))
            tlsa = dice.choice((*choices, (dice.choice(_DETOURS),)))
        yield Mx(
            pref=10 * place,
            zone=_mostly(dice, zone, "sig", "uns", "bogus", "lame"),
            tlsa=tlsa,
            alias=None if missing else _mostly(dice, None, None, "sig", "uns"),
            tlsa_at=dice.choice(("rname", "qname")),
            host=dice.choice(("nx", "noaddr")) if missing else "normal",
            addr=_mostly(dice, "listen", "listen", "refused"),
            server=_random_server(dice),
        )


def in_any_order(
    seed: int, count: int, profiles: Sequence[str], recipients: tuple[str, ...]
) -> tuple[Scenario, ...]:
    """*count* scenarios whose MX hosts are of equal preference, or have several addresses.

    What becomes of them chance may decide, recipient by recipient.
    """
    made = _Collection(f"o{seed}")
    zones: tuple[Zone, ...] = ("sig", "sig", "uns")
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    for number in range(count):
        zone = dice.choice(zones)
        hosts = tuple(
            replace(
                host,
                pref=dice.choice((10, 10, 20)),
                addr=dice.choice(("listen", "listen", "refused", "none")),
                addr6=dice.choice(("none", "listen", "refused")),
                server6=_random_server(dice) if dice.random() < 0.5 else None,
                more=(_random_server(dice),) if dice.random() < 0.2 else (),
            )
            for host in _random_hosts(dice, zone, dice.choice((1, 2, 3, 4)))
        )
        message = _mostly(dice, Message(), ORDINARY, TLS_OPTIONAL)
        made.add(
            str(number),
            *hosts,
            profile=dice.choice(profiles),
            message=replace(message, rcpts=recipients),
            zone=zone,
            kind="implicit" if len(hosts) == 1 and dice.random() < 0.3 else "mx",
        )
    return tuple(made.scenarios)


def _random_server(dice: random.Random) -> Server:
    ok, lost = "ok", "close"
    return Server(
        banner=_mostly(dice, "220", "220", "421 4.3.2 x", "554 5.3.2 x", lost, "354 x"),
        ehlo=_mostly(dice, ok, ok, "500 5.5.1 no EHLO", "421 4.3.2 x", lost, "451 4.3.0 x"),
        starttls=_mostly(dice, "offer", "offer", "none"),
        starttls_reply=_mostly(dice, "220", "220", "454 4.7.0 x", "502 5.5.1 x", lost),
        handshake=_mostly(dice, "ok", "ok", "close", "garbage", "oldproto"),
        cert=_mostly(dice, *_CERTIFICATES),  # type: ignore[arg-type]
        chain=dice.random() < 0.8,
        ehlo_tls=_mostly(dice, ok, ok, lost, "421 4.3.2 x", "500 5.5.1 x", "451 4.3.0 x"),
        requiretls=_mostly(dice, "tls", *_OFFERS),  # type: ignore[arg-type]
        smtputf8=dice.choice(("both", "both", "both", "none", "plain", "tls")),
        size=dice.choice(("10000000", "10000000", "1000", "none")),
    )


def _mostly(dice: random.Random, usual: _T, *others: _T) -> _T:
    """The usual word, and in four of ten cases any other."""
    return usual if dice.random() < 0.6 else dice.choice(others)
