"""Asking Postfix's trivial-rewrite(8): what is made of its answers, and of others.

A real Postfix answers in tests/lab/test_simulate.py.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from requiretls_milter.mirror import resolve as module
from requiretls_milter.mirror.resolve import MAX_ANSWER, Resolved, ResolveError, resolve

GREETING = b"protocol\0trivial_rewrite_protocol\0\0"
"""Postfix 3.11."""


def attributes(*pairs: tuple[str, str]) -> bytes:
    """A list as Postfix writes it."""
    return b"".join(f"{name}\x00{value}\x00".encode() for name, value in pairs) + b"\x00"


def answer(flags: str = "4096") -> bytes:
    """What trivial-rewrite(8) says of an address; its own flags come first, those of it last."""
    return attributes(
        ("flags", "0"),
        ("transport", "smtp"),
        ("nexthop", "example.org"),
        ("recipient", "b@example.org"),
        ("flags", flags),
    )


@contextmanager
def postfix(queue: Path, *pieces: bytes) -> Iterator[list[bytes]]:
    """A service that answers in *pieces*; yields what it is asked."""
    directory = queue / "private"
    directory.mkdir()
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "rewrite"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(connection.recv(4096))
                for piece in pieces:
                    connection.sendall(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(5)


def test_the_answer_is_what_a_milter_is_told(tmp_path: Path) -> None:
    with postfix(tmp_path, GREETING, answer()) as asked:
        found = resolve(tmp_path, "a@x.test", "b@example.org")
    assert found == Resolved("smtp", "example.org", "b@example.org")
    assert asked == [b"request\0resolve\0sender\0a@x.test\0address\0b@example.org\0\0"]


def test_an_older_postfix_does_not_greet_and_an_answer_may_come_in_pieces(tmp_path: Path) -> None:
    with postfix(tmp_path, *(bytes([octet]) for octet in answer())):
        assert resolve(tmp_path, "", "b@example.org").transport == "smtp"


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((), "not understood"),
        ((attributes(("flags", "0")),), "not understood"),
        ((b"\0" * 10,), "not understood"),
        ((answer("4104"),), "cannot resolve"),
        ((answer("many"),), "cannot resolve"),
        ((b"x" * (MAX_ANSWER + 1),), "not understood"),
    ],
    ids=["closed", "something else", "empty lists", "table failed", "no number", "endless"],
)
def test_any_other_answer_is_an_error(tmp_path: Path, pieces: tuple[bytes, ...], text: str) -> None:
    with postfix(tmp_path, *pieces), pytest.raises(ResolveError, match=text):
        resolve(tmp_path, "a@x.test", "b@example.org")


def test_without_postfix_or_with_a_silent_one_it_is_said_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ResolveError, match="No such file"):
        resolve(tmp_path, "", "b@example.org")
    monkeypatch.setattr(module, "TIMEOUT", 0.05)
    (tmp_path / "private").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "private" / "rewrite"))
        listener.listen()
        with pytest.raises(ResolveError, match="no answer within"):
            resolve(tmp_path, "", "b@example.org")


def test_an_address_is_asked_for_without_its_quotes(tmp_path: Path) -> None:
    with postfix(tmp_path, GREETING, answer()) as asked:
        resolve(tmp_path, '"x y"@example.net', '"a b"@example.org')
    assert b"sender\0x y@example.net\0address\0a b@example.org\0" in asked[0]


def test_octets_that_are_not_utf_8_are_asked_for_as_they_were_typed(tmp_path: Path) -> None:
    with postfix(tmp_path, GREETING, answer()) as asked:
        resolve(tmp_path, "", os.fsdecode(b"a\xff@example.org"))
    assert b"address\0a\xff@example.org\0" in asked[0]


def test_an_address_that_postfix_takes_for_none_is_an_error(tmp_path: Path) -> None:
    with (
        postfix(tmp_path, GREETING, answer("4100")),
        pytest.raises(ResolveError, match=r"no valid address: its mail bounces \(5\.1\.3\)"),
    ):
        resolve(tmp_path, "", "b@example..org")


def test_an_address_cannot_add_attributes(tmp_path: Path) -> None:
    with pytest.raises(ResolveError, match="NUL"):
        resolve(tmp_path, "", "b@example.org\0sender\0evil")
