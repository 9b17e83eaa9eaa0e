from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from requiretls_milter.syntax.expansion import (
    MAX_STEPS,
    Expansion,
    ExpansionError,
    Key,
    Lookup,
    Rewriting,
    Search,
    Tables,
    expand,
    expanding,
    keys_of,
)
from requiretls_milter.syntax.mailbox import Origin

HOME = Rewriting(
    Origin("mine.test"),
    delimiter="+",
    local_names=frozenset({"mine.test", "also.test"}),
    local_addresses=frozenset({"192.0.2.1", "2001:db8::1"}),
)


def table(entries: Mapping[str, str]) -> Lookup:
    return entries.get


def unreadable(key: str) -> str | None:
    raise ExpansionError(f"no answer for {key}")


def aliases(
    recipient: str, *tables: Mapping[str, str], rewriting: Rewriting = HOME
) -> tuple[str, ...]:
    found = expand(recipient, Tables(virtual_alias=tuple(map(table, tables))), rewriting)
    return found.addresses


# ---------------------------------------------------------------- which entry


@pytest.mark.parametrize(
    ("recipient", "goes_to"),
    [
        ("bob+news@x.test", "full@z.test"),
        ("bob+other@x.test", "bare+other@z.test"),
        ("ann@x.test", "all@z.test"),
        ("ann@y.test", "ann@y.test"),
        ("BOB+News@X.test", "full@z.test"),
    ],
)
def test_the_address_comes_before_the_one_without_extension_and_that_before_the_domain(
    recipient: str, goes_to: str
) -> None:
    entries = {
        "bob+news@x.test": "full@z.test",
        "bob@x.test": "bare@z.test",
        "@x.test": "all@z.test",
    }
    assert aliases(recipient, entries) == (goes_to,)


@pytest.mark.parametrize(
    "recipient",
    [
        *("joe", "joe@mine.test", "joe@also.test", "joe@ALSO.test."),
        *("joe@[192.0.2.1]", "joe@[IPv6:2001:db8::1]"),
    ],
)
def test_users_of_this_host_are_looked_up_without_their_domain(recipient: str) -> None:
    assert aliases(recipient, {"joe": "joe@z.test"}) == ("joe@z.test",)


@pytest.mark.parametrize("recipient", ["joe@x.test", "joe@sub.mine.test", "joe@[192.0.2.2]"])
def test_users_of_other_domains_are_not(recipient: str) -> None:
    assert aliases(recipient, {"joe": "joe@z.test"}) == (recipient,)


def test_a_user_without_extension_comes_before_a_catch_all() -> None:
    entries = {"joe": "joe@z.test", "@mine.test": "all@z.test"}
    assert aliases("joe+x@mine.test", entries) == ("joe+x@z.test",)


def test_each_key_is_looked_up_in_all_tables_before_the_next_key() -> None:
    first, second = {"@x.test": "first@z.test"}, {"bob@x.test": "second@z.test"}
    assert aliases("bob@x.test", first, second) == ("second@z.test",)
    assert aliases("bob@x.test", {"bob@x.test": "first@z.test"}, second) == ("first@z.test",)


def test_each_search_names_its_keys_its_tables_and_all_addresses_so_far() -> None:
    steps = expanding("bob+x@mine.test", Tables(canonical=("c",), virtual_alias=("v",)), HOME)
    keys = (
        Key("bob+x@mine.test", False, ""),
        Key("bob@mine.test", True, "+x"),
        Key("bob+x", True, ""),
        Key("bob", True, "+x"),
        Key("@mine.test", True, ""),
    )
    assert next(steps) == Search(keys, ("c",), (), 0)
    assert steps.send(None) == Search(keys, ("v",), ["bob+x@mine.test"], 0)
    both = ["a@z.test", "b@z.test"]
    first = steps.send((keys[0], ", ".join(both)))
    assert (first.addresses, first.place) == (both, 0)
    second = steps.send(None)
    assert second == Search(keys_of("b@z.test", HOME), ("v",), both, 1)


def test_keys_have_the_quotes_that_a_local_part_needs() -> None:
    assert aliases('"john doe"@x.test', {'"john doe"@x.test': "jd@z.test"}) == ("jd@z.test",)


# ---------------------------------------------------------------- extensions


def test_an_unmatched_extension_goes_to_each_address() -> None:
    found = aliases("bob+x@y.test", {"bob@y.test": "a@z.test, b@z.test"})
    assert found == ("a+x@z.test", "b+x@z.test")


def test_it_does_not_if_postfix_is_told_so() -> None:
    plain = replace(HOME, extends_virtual=False)
    assert aliases("bob+x@y.test", {"bob@y.test": "a@z.test"}, rewriting=plain) == ("a@z.test",)


@pytest.mark.parametrize(
    ("local", "bare"),
    [
        ("MAILER-DAEMON", "mailer"),
        ("POSTmaster", "pos"),
        ("double-bounce", "double"),
        ("owner-list", "owner"),
        ("list-request", "list"),
        ("l-request", "l"),
    ],
)
def test_some_names_have_no_extension(local: str, bare: str) -> None:
    both = replace(HOME, delimiter="-T")
    entries = {f"{bare}@y.test": "a@z.test"}
    assert aliases(f"{local}@y.test", entries, rewriting=both) == (f"{local}@y.test",)
    whole, domain = keys_of(f"{local}@y.test", both)
    assert (whole, domain) == (Key(f"{local}@y.test"), Key("@y.test", partial=True))


def test_an_address_that_begins_with_the_delimiter_has_no_extension() -> None:
    assert aliases("+x@y.test", {'""@y.test': "a@z.test"}) == ("+x@y.test",)
    assert keys_of("+x@y.test", HOME) == (Key("+x@y.test"), Key("@y.test", partial=True))


def test_a_domain_has_no_extension() -> None:
    dash = replace(HOME, delimiter="-")
    assert keys_of("@a-b.test", dash) == (Key('""@a-b.test'), Key("@a-b.test", partial=True))
    assert len(keys_of("bob@a-b.test", dash)) == 2


def test_without_a_delimiter_in_it_an_address_has_no_extension() -> None:
    assert aliases("ann@x.test", {"a@x.test": "b@z.test"}) == ("ann@x.test",)
    none = replace(HOME, delimiter="")
    assert aliases("a+b@x.test", {"a@x.test": "b@z.test"}, rewriting=none) == ("a+b@x.test",)


def test_an_empty_user_is_one_of_its_domain() -> None:
    assert aliases('""@x.test', {"@x.test": "all@z.test"}) == ("all@z.test",)


@pytest.mark.parametrize(
    ("domain", "is_local"),
    [
        *(("mine.test", True), ("also.test.", True), ("[192.0.2.1]", True), ("[192.0.2.1].", True)),
        *((".also.test", False), ("also.test..", False), ("", False), (".", False)),
        *(("[192.0.2.10", False), ("x192.0.2.1]", False), ("192.0.2.1", False), ("[]", False)),
    ],
)
def test_a_domain_of_this_host_may_end_in_one_dot(domain: str, is_local: bool) -> None:
    assert HOME.is_local(domain) is is_local


def test_what_is_not_said_is_postfixs_default() -> None:
    origin = Origin("mine.test")
    names: frozenset[str] = frozenset()
    assert Rewriting(origin) == Rewriting(origin, "", names, names, True, True, 1000, 1000, 1000)
    nothing: Tables[str] = Tables()
    assert nothing == Tables((), (), ())


def test_without_addresses_of_this_host_no_literal_is_one() -> None:
    assert not Rewriting(Origin("mine.test")).is_local("[192.0.2.1]")


def test_each_character_of_the_delimiter_begins_an_extension() -> None:
    both = replace(HOME, delimiter="+-")
    entries = {"bob@y.test": "a@z.test"}
    assert aliases("bob-x+y@y.test", entries, rewriting=both) == ("a-x+y@z.test",)


# ---------------------------------------------------------------- results


def test_a_domain_as_result_keeps_the_user_and_its_extension() -> None:
    assert aliases("bob+x@old.test", {"@old.test": "@new.test"}) == ("bob+x@new.test",)
    assert aliases("bob+x@old.test", {"bob@old.test": "@new.test"}) == ("bob+x@new.test",)


def test_the_last_at_sign_is_the_one_before_the_domain() -> None:
    assert aliases('"a@b"@old.test', {"@old.test": "@new.test"}) == ("a@b@new.test",)
    assert aliases('"a@b"@mine.test', {'"a@b"': "c@z.test"}) == ("c@z.test",)
    assert aliases('"a@b+x"@mine.test', {'"a@b"': "c@z.test"}) == ("c+x@z.test",)
    assert aliases('"a@b+x"@old.test', {'"a@b"@old.test': '"c@d"@z.test'}) == ("c@d+x@z.test",)
    assert aliases('""@old.test', {"@old.test": "@new.test"}) == ("@new.test",)
    assert aliases("bob+x@y.test", {"bob@y.test": '""@z.test'}) == ("+x@z.test",)


def test_without_an_origin_an_address_may_have_no_domain() -> None:
    nowhere = replace(HOME, origin=Origin(""))
    assert aliases("bob+x", {"bob": "ann"}, rewriting=nowhere) == ("ann+x",)
    assert aliases("bob+x", {"bob": "@z.test"}, rewriting=nowhere) == ("bob+x@z.test",)
    assert aliases("bob", {"": "all@z.test", "@": "all@z.test"}, rewriting=nowhere) == ("bob",)


def test_a_user_as_result_is_one_of_this_host() -> None:
    assert aliases("bob@x.test", {"bob@x.test": "joe, ann@x.test"}) == (
        "joe@mine.test",
        "ann@x.test",
    )


def test_results_are_expanded_in_their_turn() -> None:
    entries = {"a@x.test": "b, c@x.test", "b": "d@z.test", "c@x.test": "e@z.test, f@z.test"}
    assert aliases("a@x.test", entries) == ("d@z.test", "e@z.test", "f@z.test")


def test_one_that_expands_to_itself_too_is_kept() -> None:
    entries = {"a@x.test": "A@x.test, copy@z.test"}
    found = expand("a@x.test", Tables(virtual_alias=(table(entries),)), HOME)
    assert found.addresses == ("A@x.test", "copy@z.test")
    assert not found.unchanged


def test_a_catch_all_for_the_own_domain_ends_with_one_that_maps_to_itself() -> None:
    entries = {"@x.test": "all@x.test", "all@x.test": "all@x.test"}
    assert aliases("ann@x.test", entries) == ("all@x.test",)


def test_each_address_counts_once() -> None:
    entries = {"a@x.test": "b@z.test, B@z.test, c@z.test"}
    assert aliases("a@x.test", entries) == ("b@z.test", "c@z.test")


# ---------------------------------------------------------------- what is not known


def test_a_circle_is_not_expanded() -> None:
    with pytest.raises(ExpansionError, match="circle"):
        aliases("a@x.test", {"a@x.test": "b@x.test", "b@x.test": "a@x.test"})


@pytest.mark.parametrize("addresses", [3, 4])
def test_at_most_so_many_addresses(addresses: int) -> None:
    few = replace(HOME, expansion_limit=3)
    entries = {"a@x.test": ", ".join(f"u{n}@z.test" for n in range(addresses))}
    if addresses <= 3:
        assert len(aliases("a@x.test", entries, rewriting=few)) == addresses
    else:
        with pytest.raises(ExpansionError, match="too many"):
            aliases("a@x.test", entries, rewriting=few)


@pytest.mark.parametrize("steps", [2, 3])
def test_at_most_so_many_steps(steps: int) -> None:
    few = replace(HOME, recursion_limit=3)
    entries = {f"u{n}@x.test": f"u{n + 1}@x.test" for n in range(steps)}
    if steps < 3:
        assert aliases("u0@x.test", entries, rewriting=few) == (f"u{steps}@x.test",)
    else:
        with pytest.raises(ExpansionError, match="too often"):
            aliases("u0@x.test", entries, rewriting=few)


@pytest.mark.parametrize("octets", [20, 21])
def test_at_most_so_long_an_address(octets: int) -> None:
    short = replace(HOME, length_limit=20)
    entries = {"a@x.test": "u" * (octets - 7) + "@z.test"}
    if octets <= 20:
        assert aliases("a@x.test", entries, rewriting=short)
    else:
        with pytest.raises(ExpansionError, match="too long"):
            aliases("a@x.test", entries, rewriting=short)


@pytest.mark.parametrize("steps", [MAX_STEPS, MAX_STEPS + 1])
def test_no_recipient_takes_more_steps_than_a_callback_has_time_for(steps: int) -> None:
    patient = replace(HOME, recursion_limit=2 * MAX_STEPS)
    entries = {f"u{n}@x.test": f"u{n + 1}@x.test" for n in range(steps - 1)}
    if steps <= MAX_STEPS:
        assert aliases("u0@x.test", entries, rewriting=patient) == (f"u{steps - 1}@x.test",)
    else:
        with pytest.raises(ExpansionError, match="10000 steps"):
            aliases("u0@x.test", entries, rewriting=patient)


def test_a_table_that_cannot_be_read_hides_what_would_come_after_it() -> None:
    first = table({"a@x.test": "b@z.test"})
    tables = Tables(virtual_alias=(first, unreadable))
    with pytest.raises(ExpansionError, match="no answer"):
        expand("a@x.test", tables, HOME)  # b@z.test might be in it
    with pytest.raises(ExpansionError, match="no answer"):
        expand("c@x.test", tables, HOME)


@pytest.mark.parametrize("result", ["(nobody)", "<>", ",", "a: b;"])
def test_a_result_that_is_no_address_is_not_guessed_at(result: str) -> None:
    with pytest.raises(ExpansionError, match="address"):
        aliases("a@x.test", {"a@x.test": result})


def test_a_recipient_that_is_no_plain_address_is_not_guessed_at() -> None:
    with pytest.raises(ExpansionError, match=r"@x\.test:a@y\.test"):
        aliases("@x.test:a@y.test", {})


# ---------------------------------------------------------------- canonical maps


def canonical(recipient: str, *tables: Mapping[str, str], rewriting: Rewriting = HOME) -> str:
    found = expand(recipient, Tables(canonical=tuple(map(table, tables))), rewriting)
    return found.addresses[0]


def test_canonical_maps_rewrite_to_one_address() -> None:
    assert canonical("a@x.test", {"a@x.test": "b@x.test, c@x.test"}) == "b@x.test"
    assert canonical("a@x.test", {"a@x.test": "b@x.test", "b@x.test": "c@z.test"}) == "c@z.test"


def test_canonical_maps_keep_extensions_and_users_as_aliases_do() -> None:
    assert canonical("bob+x@y.test", {"bob@y.test": "a@z.test"}) == "a+x@z.test"
    assert canonical("bob+x@old.test", {"@old.test": "@new.test"}) == "bob+x@new.test"
    plain = replace(HOME, extends_canonical=False)
    assert canonical("bob+x@y.test", {"bob@y.test": "a@z.test"}, rewriting=plain) == "a@z.test"


def test_a_circle_of_canonical_maps_ends_somewhere_after_ten_steps() -> None:
    assert canonical("a@x.test", {"a@x.test": "b@x.test", "b@x.test": "a@x.test"}) == "a@x.test"


def test_recipient_canonical_maps_come_first_and_aliases_last() -> None:
    tables = Tables(
        recipient_canonical=(table({"a@x.test": "b@x.test"}),),
        canonical=(table({"b@x.test": "c@x.test", "a@x.test": "wrong@x.test"}),),
        virtual_alias=(table({"c@x.test": "d@z.test", "a@x.test": "wrong@x.test"}),),
    )
    assert expand("a@x.test", tables, HOME) == Expansion("a@x.test", ("d@z.test",))


def test_an_address_that_nothing_names_stays_as_it_is() -> None:
    found = expand("<Bob@x.test.>", Tables(virtual_alias=(table({}),)), HOME)
    assert found == Expansion("Bob@x.test", ("Bob@x.test",))
    assert found.unchanged
    assert expand("bob", Tables(), HOME).addresses == ("bob@mine.test",)


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "a@mine.test", "b@x.test", "@x.test", "@mine.test"]),
        st.lists(
            st.sampled_from(["a", "b", "b+e@x.test", "@x.test", "c@z.test", "d@mine.test"]),
            min_size=1,
            max_size=4,
        ).map(", ".join),
    ),
    st.sampled_from(["a", "a+e", "b@x.test", "b+e@x.test", "z@x.test", "q@mine.test"]),
)
def test_any_tables_expand_to_addresses_that_end_or_to_an_error(
    entries: dict[str, str], recipient: str
) -> None:
    few = replace(HOME, recursion_limit=20, expansion_limit=20, length_limit=60)
    try:
        found = aliases(recipient, entries, rewriting=few)
    except ExpansionError:
        return
    assert found
    assert len({one.casefold() for one in found}) == len(found)
