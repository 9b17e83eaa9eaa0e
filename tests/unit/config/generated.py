"""Configurations as TOML has them, for properties that hold of every one."""

from __future__ import annotations

from hypothesis import strategies as st

from requiretls_milter.model import RequiretlsPolicy

MODES = st.sampled_from(["off", "monitor", "defer", "reject"])
LABEL = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
PATTERN = st.builds("{}{}.example".format, st.sampled_from(["", "."]), LABEL)
RULE = st.fixed_dictionaries(
    {},
    optional={
        "mode": MODES,
        "require": st.booleans(),
        "decide_wait": st.floats(0.001, 29.9),
        "downgrade_grace": st.integers(0, 10_000_000),
        "on_unknown": st.sampled_from(["auto", "accept", "defer"]),
    },
)
CONFIG = st.fixed_dictionaries(
    {
        "rules": st.fixed_dictionaries(
            {"mode": MODES},
            optional={
                "recipient": st.dictionaries(PATTERN, RULE, max_size=3),
                "sender": st.dictionaries(PATTERN, RULE, max_size=3),
            },
        ),
        "mta": st.fixed_dictionaries(
            {
                "requiretls_policy": st.one_of(
                    st.just("default"),
                    st.sampled_from([word.value for word in RequiretlsPolicy]),
                    st.dictionaries(
                        PATTERN, st.sampled_from([word.value for word in RequiretlsPolicy])
                    ),
                )
            },
            optional={
                "transport": st.dictionaries(
                    LABEL, st.fixed_dictionaries({}, optional={"mx_address_limit": st.just(3)})
                ),
                "inet_protocols": st.sampled_from([["ipv4"], ["ipv6"], ["ipv4", "ipv6"]]),
            },
        ),
        "milter": st.fixed_dictionaries(
            {},
            optional={
                "socket": st.sampled_from(
                    ["unix:/run/m.sock", "inet:8894@localhost", "inet6:8894@[::1]"]
                )
            },
        ),
        "metrics": st.fixed_dictionaries(
            {}, optional={"listen": st.sampled_from(["", "127.0.0.2:9894", "[::1]:9894"])}
        ),
        "dns": st.fixed_dictionaries(
            {"timeout": st.floats(0.001, 3600)},
            optional={
                "nameservers": st.lists(st.sampled_from(["::1", "127.0.0.1:53", "[::1]:5353"]))
            },
        ),
        "store": st.fixed_dictionaries(
            {"url": st.from_regex(r"sqlite:///[a-zA-Z0-9\"'\\é]{1,20}", fullmatch=True)}
        ),
    }
)
