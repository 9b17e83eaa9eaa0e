"""Strings of strangers and of Postfix become values: one notation, one module. Pure.

Much of what this program reads comes from outside: an envelope address from a sender, a host name
from the publisher of a DNS record, a reply from a server, a next hop from Postfix, a socket from
the operator. Each notation is read here, once, by a function that takes any text, asks no
network, and returns a value or raises an error that tells a person what to change. Everything
else in the program handles the values.

- ``text``: foreign text made fit for a log line, a reply, a header field or a terminal.
- ``names``: domain names and IP addresses; the keys of a Postfix table; envelope addresses.
- ``nexthop``: next hops in the notation of Postfix and of Sendmail.
- ``endpoint``: ADDRESS:PORT, the socket of a milter, the URL of a store; well-known ports.
- ``tlspolicy``: entries of smtp_tls_policy_maps.
- ``status``: enhanced status codes, and which of two is worse.
- ``mailbox`` and ``expansion``: addresses, and what Postfix makes of a recipient by its ``tables``.
- ``capability``: what an MTA carries, by its version. ``ciphers``: what the name of a suite says.
- ``moments``: times. ``strict``: JSON of another process. ``markup``: HTML.

``str()`` of a value is its canonical text, and reads back as the same value. tests/unit/syntax
shows that for generated text, and tests/fuzz feeds the same functions with hostile bytes.
"""
