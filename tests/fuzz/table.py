"""Which targets there are: nothing of the product is imported here.

The product's modules have to be imported below atheris, which counts the
branches of what it has seen being loaded.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"

PRODUCT = "requiretls_milter"


@dataclass(frozen=True)
class Target:
    """One target: the function ``name`` of ``tests.fuzz.targets.module``.

    ``instrument``: packages besides the product whose branches guide the
    fuzzer. ``words``: libFuzzer's dictionary. ``longest``: octets of an input.
    """

    name: str
    module: str
    words: tuple[bytes, ...] = ()
    instrument: tuple[str, ...] = ()
    longest: int = 4096

    def load(self) -> Callable[[bytes], None]:
        """Import the function."""
        module = importlib.import_module(f"tests.fuzz.targets.{self.module}")
        function: Callable[[bytes], None] = getattr(module, self.name)
        return function

    @property
    def corpus(self) -> Path:
        """The directory of its seeds."""
        return CORPUS / self.name

    def seeds(self) -> list[Path]:
        """The committed inputs, crashes of the past among them."""
        return sorted(self.corpus.iterdir())


_SMTP = (b"250-", b"250 ", b"220 ", b"\r\n", b"STARTTLS", b"REQUIRETLS", b"421 4.3.0 ", b"\x00")
_STS = (b"version", b"STSv1", b"mode", b"enforce", b"testing", b"none", b"max_age", b"mx", b"*.")

TARGETS = {
    target.name: target
    for target in (
        Target("mail_parameters", "message", (b"REQUIRETLS", b"SIZE=", b"SMTPUTF8", b" ")),
        Target(
            "bounce_parameters", "message", (b"RET=", b"HDRS", b"ENVID=", b"BODY=", b"BY=", b" ")
        ),
        Target("tls_required", "message", (b"No", b"\r\n\t", b"(")),
        Target(
            "header_fields",
            "message",
            (
                b"tls-required:",
                b"require-tls-esmtp:",
                b"received:",
                b"x-requiretls:",
                b"requirement=requiretls",
                b"(requiretls)",
                b"yes",
                b"no",
                b"\x00",
            ),
        ),
        Target("tag", "message", (b"requirement=", b"; ", b"\r\n")),
        Target(
            "transaction",
            "message",
            (
                b"REQUIRETLS",
                b"tls-required:no",
                b"require-tls-esmtp:yes",
                b"@reject.example>",
                b"[192.0.2.1]:25",
                b"local",
                b"smtp",
                b"<>",
                b"5.7.30",
                b"\x00",
                b"\xff",
            ),
        ),
        Target(
            "next_hop", "names", (b"[", b"]", b":", b"IPv6:", b"submission", b"inet:", b"unix:")
        ),
        Target(
            "domain_name",
            "names",
            (b"xn--", b".", "。".encode(), "ß".encode(), "\u200d".encode()),
            ("idna",),
        ),
        Target("macros", "names", (b"smtp", b"local", b"[", b"]:", b"@", b"\x00", b", ")),
        Target("ehlo", "smtp", _SMTP),
        Target("smtp_reply", "smtp", _SMTP),
        Target("smtp_session", "smtp", (*_SMTP, b"\x00\x01\x00"), longest=8192),
        Target("sts_record", "policy", (b"v=STSv1;", b" id=", b";", b"\n"), longest=1024),
        Target("sts_policy", "policy", (*_STS, b": ", b"\r\n")),
        Target(
            "policy_reply",
            "https",
            (
                b"HTTP/1.1 200 OK\r\n",
                b"HTTP/1.0 200 OK\r\n",
                b"HTTP/1.1 100 Continue\r\n\r\n",
                b"Content-Type: text/plain\r\n",
                b"Content-Length: ",
                b"Transfer-Encoding: ",
                b"Content-Encoding: ",
                b"Connection: close\r\n",
                b"chunked",
                b"gzip",
                b"identity",
                b"\r\n\r\n",
                b"0\r\n\r\n",
                *_STS,
            ),
        ),
        Target("tlsa_rdata", "dane", (b"\x03\x01\x01", b"\x02\x00\x01"), ("dns",)),
        Target("tlsa_match", "dane", (b"\x03\x01\x01", b"\x02\x00\x01")),
        Target("certificate", "dane", longest=8192),
        Target("certificate_chain", "dane", longest=16384),
        Target("dns_answer", "answers", (b"\xc0\x0c\x00",), ("dns",)),
        Target("dns_reply", "answers", (b"\xc0\x0c\x00", b"\x00\x29"), ("dns",)),
        Target(
            "wire_request",
            "engine",
            (
                b'"op":',
                b'"forecast"',
                b'"counters"',
                b'"evidence"',
                b'"status"',
                b'"v":1',
                b'"id":',
            ),
        ),
        Target(
            "wire_reply",
            "engine",
            (b'"op":', b'"forecast"', b'"evidence"', b'"error"', b'"status"', b'"v":1', b'"id":'),
            longest=16384,
        ),
        Target("wire_frames", "engine", (b"\x00\x00\x00",)),
        Target(
            "kept_record",
            "engine",
            (b'"policy":', b'"found":', b'"mode":"enforce"', b'"mx":[', b'"v":1', b'"chain":['),
        ),
        Target(
            "redis_reply",
            "store",
            (b"$", b"*", b":", b"+OK", b"-ERR ", b"-MOVED ", b"\r\n", b"*2\r\n", b"$-1\r\n"),
            ("redis",),
        ),
        Target("redis_record", "store", (b"RTLS2 ", b"RTLS3 ", b"1800000000.000", b"\n")),
        Target(
            "offered_record", "store", (b'"first_seen":', b'"last_seen":', b'"lost_at":', b"1e99")
        ),
        Target("spent_record", "store", (b'"debts":[[', b'"at":', b'"v":1', b"1e99", b"[60.0]")),
        Target(
            "store_url",
            "store",
            (b"redis://", b"rediss://", b"sqlite:///", b"memory:", b"?ssl_cert_reqs=", b"%", b"@"),
        ),
        Target(
            "log_lines",
            "logs",
            (b"event=recipient ", b'"event":"recipient"', b"sender=", b"to=", b"reason=", b"\n"),
        ),
        Target(
            "configuration",
            "settings",
            (
                *(b"[milter]", b"[mta]", b"[rules]", b'"', b"true", b" = ", b"[", b"]", b"\n"),
                *(b'include = ["*"]', b"[rules.list.", b'domains_file = "other"', b"\x00"),
            ),
            ("tomllib",),
        ),
        Target("domain_list", "settings", (b"*.", b"@", b"://", b"#", b"xn--", b"\r\n"), ("idna",)),
    )
}
"""All targets by name, in the order in which they run."""
