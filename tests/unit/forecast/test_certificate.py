"""Which names a certificate has, against OpenSSL's own X509_check_host()."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from requiretls_milter.forecast import pkix
from tests.support import build, chains, openssl

pytestmark = pytest.mark.usefixtures("openssl_to_compare_with")

LABELS = ("mx", "MX", "*", "m*", "*x", "www", "example", "org", "xn--bcher-kva", "", "a.b")
names = st.one_of(
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join),
    st.sampled_from(("*.org", "*.example.org", "*.mx.example.org", ".example.org", "*")),
)
references = st.builds(
    "{}{}".format,
    st.sampled_from(("", "", ".")),
    st.lists(st.sampled_from(("mx", "www", "example", "org")), min_size=2, max_size=4).map(
        ".".join
    ),
)


@settings(max_examples=300)
@given(st.lists(names.filter(bool), max_size=3), names.filter(bool), references)
def test_a_certificate_names_what_openssl_says_it_does(
    dns_names: list[str], common_name: str, reference: str
) -> None:
    root = chains.Make("Root", 3, ca=True)
    leaf = chains.issue(chains.Make(common_name, 1, tuple(dns_names), use="server"), root)
    authority = chains.issue(root, None)
    mismatch = pkix.check((leaf,), (reference,), chains.trusting(authority), build.NOW).mismatch
    verdict = openssl.pkix((leaf,), (authority,), (reference,), build.NOW)
    assert (mismatch is None) == (verdict.error == ""), (mismatch, verdict.error)
