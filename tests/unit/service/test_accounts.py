"""Users and groups that the configuration names."""

from __future__ import annotations

import grp
import pwd

import pytest

from requiretls_milter.config import Milter
from requiretls_milter.service.accounts import missing_accounts

GROUP = grp.getgrgid(0).gr_name
USER = pwd.getpwuid(0).pw_name


def missing(**keys: str) -> list[tuple[str, str]]:
    return missing_accounts(Milter.model_validate(keys))


@pytest.mark.parametrize(
    "keys", [{}, {"socket_group": GROUP, "socket_owner": USER}, {"socket_group": "54321"}]
)
def test_what_is_there_or_a_number_is_good(keys: dict[str, str]) -> None:
    assert missing(**keys) == []


def test_what_is_not_there_is_told_with_the_nearest_that_is() -> None:
    assert missing(socket_owner=f"{USER}x", socket_group=f"{GROUP}x") == [
        (
            "socket_owner",
            f'there is no user "{USER}x" on this host, so that nothing can start; write '
            f'socket_owner = "{USER}"',
        ),
        (
            "socket_group",
            f'there is no group "{GROUP}x" on this host, so that nothing can start; write '
            f'socket_group = "{GROUP}"',
        ),
    ]


def test_what_is_like_none_is_told_without_a_guess() -> None:
    ((key, why),) = missing(socket_group="zzqqzzqqzz")
    assert key == "socket_group"
    assert why.endswith("install the MTA first")
