"""Who has which loopback address.

They are the same in every lab: a root's ``/etc/resolv.conf`` is shared by all labs that run in
it.  In network namespaces of their own labs do not meet; on the bare loopback only one can run
at a time (``lab.py`` holds a lock for that).
"""

from __future__ import annotations

import ipaddress

RESOLVER = "127.53.0.1"
"""Unbound."""

NAMESERVER = "127.53.0.2"
"""Knot: the root, ``test.`` and all zones that answer."""

NAMESERVER_LAME = "127.53.0.3"
"""Knot too, for the zone that it cannot load: it answers SERVFAIL."""

NAMESERVER_DEAD = "127.53.0.4"
"""A socket that is never read: queries vanish."""

POLICY_HOST = "127.43.0.1"
"""HTTPS server of all MTA-STS policies."""

FRONT = "127.25.0.1"
"""The MTA under test."""

DOWNSTREAM = "127.25.0.2"
"""A real Postfix that announces REQUIRETLS."""

POSTFIX_3_7 = "127.25.0.37"
POSTFIX_3_10 = "127.25.0.40"
POSTFIX_3_11 = "127.25.0.41"
SENDMAIL_8_17 = "127.25.0.87"
SENDMAIL_8_18 = "127.25.0.88"
"""Further MTAs, for tests that start them."""

MAILBOX = "127.25.0.3"
"""Takes what is for the lab's own sender addresses: bounces."""

MILTER = "127.25.0.9"
"""For a milter that listens on TCP."""

FIRST_MX = ipaddress.IPv4Address("127.1.0.1")
"""Scripted servers have addresses from here on, one each."""

FIRST_MX6 = ipaddress.IPv6Address("fd25::1:1")
"""Their IPv6 addresses, in a namespace of the lab's own."""

FIRST_MAPPED = ipaddress.IPv4Address("127.6.0.1")
"""Elsewhere nobody may give the loopback an IPv6 address: there they have IPv4-mapped ones
(RFC 4291 section 2.5.5.2), ``::ffff:127.6.0.1``, which clients call by IPv6's sockets."""

NETWORKS = ("127.0.0.0/8", "fd25::/64", "::ffff:127.0.0.0/104")
"""All of these, but for those without a route."""

NO_ROUTE = "255.255.255.255"
"""connect(2) refuses it with ENETUNREACH, in any namespace, before a packet is sent."""
