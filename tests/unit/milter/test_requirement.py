from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.milter.requirement import (
    NOTHING_ASKED,
    Asked,
    HeaderFindings,
    asks_requiretls,
    is_lost,
    is_tls_required_no,
    resolve,
)
from requiretls_milter.model import Capability, ProfileName, Requirement, Source

POSTFIX, RFC8689 = ProfileName.POSTFIX, ProfileName.RFC8689
REQUIRETLS, NO, NONE = Requirement.REQUIRETLS, Requirement.TLS_REQUIRED_NO, Requirement.NONE


def findings(*fields: tuple[str, bytes]) -> HeaderFindings:
    found = HeaderFindings("x-requiretls")
    for name, value in fields:
        found.add(name, value)
    return found


def resolved(found: HeaderFindings, **more: object) -> Asked:
    arguments: dict[str, object] = {
        "esmtp": False,
        "rule_requires": False,
        "capability": Capability.REQUIRETLS,
        "esmtp_header": True,
        "profile": POSTFIX,
        **more,
    }
    return resolve(found, **arguments)  # type: ignore[arg-type]


# ---------------------------------------------------------------- MAIL parameters


@pytest.mark.parametrize(
    ("parameters", "asks"),
    [
        ([b"REQUIRETLS"], True),
        ([b"requiretls"], True),
        ([b"ReQuIrEtLs"], True),
        ([b"SIZE=1234", b"BODY=8BITMIME", b"REQUIRETLS", b"RET=FULL"], True),
        ([b"REQUIRETLS", b"REQUIRETLS"], True),
        ([b"REQUIRETLS="], False),
        ([b"REQUIRETLS=yes"], False),
        ([b"REQUIRETLSX"], False),
        ([b"XREQUIRETLS"], False),
        ([b" REQUIRETLS"], False),
        ([b"ENVID=REQUIRETLS"], False),
        ([b"REQUIRETLS" * 1000], False),
        ([b"A" * 10_000], False),
        ([b"\xff\xfe"], False),
        ([b""], False),
        ([], False),
    ],
)
def test_r01_the_parameter_is_the_bare_keyword_in_any_case(
    parameters: list[bytes], asks: bool
) -> None:
    assert asks_requiretls(parameters) is asks


@given(st.lists(st.binary(max_size=20)))
def test_r01_no_other_parameter_asks(parameters: list[bytes]) -> None:
    expected = any(parameter.upper() == b"REQUIRETLS" for parameter in parameters)
    assert asks_requiretls(parameters) is expected


# ---------------------------------------------------------------- TLS-Required


@pytest.mark.parametrize(
    "value", [b"No", b"no", b"NO", b"nO", b"\tNo", b"  No", b"\n No", b"\r\n\tNo"]
)
def test_r08_no_in_any_case_and_after_folding_white_space(value: bytes) -> None:
    assert is_tls_required_no(value)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"Yes",
        b"No (comment)",
        b"(comment) No",
        b"No ",
        b"No\n",
        b"N o",
        b"No; x",
        b"Nope",
        b'"No"',
        b"\xc2\xa0No",
        b"N\xc3\xb6",
        b"\xff\xfe",
        b"No\0",
        b"\0No",
        b"N" + b"o" * 100_000,
        b" " * 100_000,
    ],
)
def test_r08_anything_else_is_malformed(value: bytes) -> None:
    assert not is_tls_required_no(value)


@pytest.mark.parametrize(
    ("values", "postfix", "rfc8689"),
    [
        ([b"No"], True, True),
        ([b"No", b"no"], True, True),
        ([b"No", b"yes"], True, False),
        ([b"yes", b"No"], True, False),
        ([b"yes"], False, False),
        ([], False, False),
        ([b"No (x)", b"no"], True, False),
    ],
)
def test_r09_of_several_fields_postfix_takes_any_and_the_rfc_wants_all(
    values: list[bytes], postfix: bool, rfc8689: bool
) -> None:
    found = findings(*(("tls-required", value) for value in values))
    assert found.tls_required(POSTFIX) is postfix
    assert found.tls_required(RFC8689) is rfc8689
    assert found.tls_required_no + found.tls_required_malformed == len(values)


# ---------------------------------------------------------------- what is asked, and carried


def test_r10_the_mail_parameter_wins_over_the_header_field() -> None:
    found = findings(("tls-required", b"No"))
    assert resolved(found, esmtp=True) == Asked(REQUIRETLS, Source.ESMTP, REQUIRETLS)


@pytest.mark.parametrize("value", [b"yes", b"YES", b" yes", b"\n yes"])
def test_the_field_that_postfix_adds_asks_as_the_parameter_does(value: bytes) -> None:
    found = findings(("require-tls-esmtp", value))
    assert resolved(found) == Asked(REQUIRETLS, Source.REQUIRE_TLS_ESMTP, REQUIRETLS)
    assert resolved(found, esmtp_header=False) == NOTHING_ASKED


@pytest.mark.parametrize("value", [b"no", b"yes (x)", b"yess", b"", b"1", b"yes "])
def test_other_values_of_the_field_that_postfix_adds_ask_nothing(value: bytes) -> None:
    assert resolved(findings(("require-tls-esmtp", value))) == NOTHING_ASKED


HEADERS = {
    "none": findings(),
    "no": findings(("tls-required", b"No")),
    "yes": findings(("require-tls-esmtp", b"yes")),
    "both": findings(("require-tls-esmtp", b"yes"), ("tls-required", b"No")),
}
ESMTP, HEADER, RULE, FIELD = (
    Source.ESMTP,
    Source.REQUIRE_TLS_ESMTP,
    Source.RULE,
    Source.TLS_REQUIRED,
)
FULL, HALF, NOTHING = Capability.REQUIRETLS, Capability.TLS_REQUIRED, Capability.NOTHING


@pytest.mark.parametrize(
    ("esmtp", "header", "rule", "able", "expected"),
    [
        (True, "none", False, FULL, (REQUIRETLS, ESMTP, REQUIRETLS)),
        (True, "none", True, FULL, (REQUIRETLS, ESMTP, REQUIRETLS)),
        (True, "both", False, FULL, (REQUIRETLS, ESMTP, REQUIRETLS)),
        (True, "none", False, HALF, (REQUIRETLS, ESMTP, NONE)),
        (True, "no", False, HALF, (REQUIRETLS, ESMTP, NO)),
        (True, "none", False, NOTHING, (REQUIRETLS, ESMTP, NONE)),
        (False, "yes", False, FULL, (REQUIRETLS, HEADER, REQUIRETLS)),
        (False, "both", False, FULL, (REQUIRETLS, HEADER, REQUIRETLS)),
        (False, "yes", True, FULL, (REQUIRETLS, HEADER, REQUIRETLS)),
        (False, "yes", False, HALF, (REQUIRETLS, HEADER, NONE)),
        (False, "both", False, HALF, (REQUIRETLS, HEADER, NO)),
        (False, "none", True, FULL, (REQUIRETLS, RULE, NONE)),
        (False, "no", True, FULL, (REQUIRETLS, RULE, NO)),
        (False, "no", True, HALF, (REQUIRETLS, RULE, NO)),
        (False, "no", True, NOTHING, (REQUIRETLS, RULE, NONE)),
        (False, "no", False, FULL, (NO, FIELD, NO)),
        (False, "no", False, HALF, (NO, FIELD, NO)),
        (False, "no", False, NOTHING, (NO, FIELD, NONE)),
        (False, "none", False, FULL, (NONE, Source.NONE, NONE)),
    ],
)
def test_what_is_asked_and_what_the_mta_carries_are_told_apart(
    esmtp: bool,
    header: str,
    rule: bool,
    able: Capability,
    expected: tuple[Requirement, Source, Requirement],
) -> None:
    asked = resolved(HEADERS[header], esmtp=esmtp, rule_requires=rule, capability=able)
    assert (asked.requirement, asked.source, asked.carried) == expected


# ---------------------------------------------------------------- a requirement that got lost


@pytest.mark.parametrize(
    ("fields", "lost"),
    [
        ([], False),
        ([("received", b"from a by b with ESMTPS (requiretls) id x; date")], True),
        ([("received", b"from a by b\n\twith ESMTPS ( RequireTLS )\n\tid x")], True),
        ([("received", b"from requiretls (requiretls.example [192.0.2.1]) by b")], False),
        ([("received", b"from a by b with ESMTPS id x"), ("received", b"x (requiretls) y")], True),
        ([("x-requiretls", b"requirement=requiretls; source=esmtp; forecast=2.0.0")], True),
        ([("x-requiretls", b" Requirement = RequireTLS")], True),
        ([("x-requiretls", b"requirement=none; source=none")], False),
        ([("x-requiretls", b"requirement=requiretlsx")], False),
        ([("x-requiretls", b"x" * 5000 + b"; requirement=requiretls")], False),
        ([("subject", b"(requiretls)")], False),
    ],
)
def test_r17_a_requirement_that_got_lost_on_the_path_is_seen(
    fields: list[tuple[str, bytes]], lost: bool
) -> None:
    assert is_lost(findings(*fields), esmtp=False, esmtp_header=True) is lost
    assert not is_lost(findings(*fields), esmtp=True, esmtp_header=True)


def test_r17_postfixs_field_is_a_trace_where_it_is_not_honoured() -> None:
    found = findings(("require-tls-esmtp", b"yes"))
    assert not is_lost(found, esmtp=False, esmtp_header=True)
    assert is_lost(found, esmtp=False, esmtp_header=False)


names = st.sampled_from(["received", "tls-required", "require-tls-esmtp", "x-requiretls", "from"])


@given(st.lists(st.tuples(names, st.binary(max_size=60)), max_size=8), st.booleans())
def test_any_header_yields_a_requirement_and_never_an_exception(
    fields: list[tuple[str, bytes]], rule: bool
) -> None:
    found = findings(*fields)
    asked = resolved(found, rule_requires=rule)
    assert (asked.source is Source.NONE) is (asked.requirement is NONE)
    assert found.tags == sum(name == "x-requiretls" for name, _ in fields)
