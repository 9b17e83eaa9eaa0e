"""OpenSSL's own judgement of a chain: X509_verify_cert() with DANE, as its TLS client calls it.

An oracle that we did not write, and the code by which Postfix verifies. What is
called here is what ssl_verify_cert_chain() does within a handshake, so that
thousands of chains can be tried in a second. The library is the one that
Python's ssl is linked with, by ctypes: no Python binding knows SSL_dane_enable().
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from requiretls_milter.model import TlsaRecord

NO_DANE_EE_NAMECHECKS = 1
"""DANE_FLAG_NO_DANE_EE_NAMECHECKS: RFC 7672 section 3.1.1; Postfix sets it."""

NO_PARTIAL_WILDCARDS = 0x4
"""X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, as Postfix has it."""

SECURITY_LEVEL = 1
"""Of Postfix where it authenticates (tls_client.c)."""

_POINTER, _INT, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TLS_client_method": (_POINTER, ()),
    "SSL_CTX_new": (_POINTER, (_POINTER,)),
    "SSL_CTX_dane_enable": (_INT, (_POINTER,)),
    "SSL_CTX_dane_set_flags": (ctypes.c_ulong, (_POINTER, ctypes.c_ulong)),
    "SSL_new": (_POINTER, (_POINTER,)),
    "SSL_free": (None, (_POINTER,)),
    "SSL_dane_enable": (_INT, (_POINTER, _TEXT)),
    "SSL_dane_tlsa_add": (
        _INT,
        (_POINTER, *(ctypes.c_uint8,) * 3, _TEXT, ctypes.c_size_t),
    ),
    "SSL_add1_host": (_INT, (_POINTER, _TEXT)),
    "SSL_set_hostflags": (None, (_POINTER, ctypes.c_uint)),
    "SSL_get0_dane": (_POINTER, (_POINTER,)),
    "SSL_get0_param": (_POINTER, (_POINTER,)),
    "X509_STORE_new": (_POINTER, ()),
    "X509_STORE_free": (None, (_POINTER,)),
    "X509_STORE_add_cert": (_INT, (_POINTER, _POINTER)),
    "X509_STORE_CTX_new": (_POINTER, ()),
    "X509_STORE_CTX_free": (None, (_POINTER,)),
    "X509_STORE_CTX_init": (_INT, (_POINTER,) * 4),
    "X509_STORE_CTX_set0_dane": (None, (_POINTER, _POINTER)),
    "X509_STORE_CTX_set_default": (_INT, (_POINTER, _TEXT)),
    "X509_STORE_CTX_get0_param": (_POINTER, (_POINTER,)),
    "X509_STORE_CTX_get_error": (_INT, (_POINTER,)),
    "X509_VERIFY_PARAM_set1": (_INT, (_POINTER, _POINTER)),
    "X509_VERIFY_PARAM_set_auth_level": (None, (_POINTER, _INT)),
    "X509_VERIFY_PARAM_set_time": (None, (_POINTER, ctypes.c_long)),
    "X509_verify_cert": (_INT, (_POINTER,)),
    "X509_verify_cert_error_string": (_TEXT, (ctypes.c_long,)),
    "d2i_X509": (_POINTER, (_POINTER, ctypes.POINTER(_TEXT), ctypes.c_long)),
    "i2d_X509": (_INT, (_POINTER, ctypes.POINTER(_TEXT))),
    "X509_free": (None, (_POINTER,)),
    "X509_sign": (_INT, (_POINTER, _POINTER, _POINTER)),
    "EVP_sha1": (_POINTER, ()),
    "d2i_AutoPrivateKey": (_POINTER, (_POINTER, ctypes.POINTER(_TEXT), ctypes.c_long)),
    "EVP_PKEY_free": (None, (_POINTER,)),
    "OPENSSL_sk_new_null": (_POINTER, ()),
    "OPENSSL_sk_push": (_INT, (_POINTER, _POINTER)),
    "OPENSSL_sk_free": (None, (_POINTER,)),
    "ERR_clear_error": (None, ()),
}


@dataclass(frozen=True)
class Verdict:
    """What OpenSSL says: how many records it can use, and why the chain is not verified ("")."""

    usable: int
    error: str


class Unavailable(Exception):
    """There is no OpenSSL 3 to be loaded; the text says why."""


@functools.cache
def _library() -> Any:
    """libssl, and what it needs of libcrypto by way of it."""
    try:
        library = ctypes.CDLL("libssl.so.3")
    except OSError as error:
        raise Unavailable(str(error)) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def _context() -> Any:
    """An SSL_CTX that can DANE; SHA-512 goes before SHA-256, as in Postfix's tls_dane_digests."""
    ssl = _library()
    context = ssl.SSL_CTX_new(ssl.TLS_client_method())
    assert ssl.SSL_CTX_dane_enable(context) == 1
    ssl.SSL_CTX_dane_set_flags(context, NO_DANE_EE_NAMECHECKS)
    return context


@contextmanager
def _certificates(ders: Sequence[bytes]) -> Iterator[list[Any]]:
    ssl = _library()
    read = []
    try:
        for der in ders:
            position = _TEXT(der)
            certificate = ssl.d2i_X509(None, ctypes.byref(position), len(der))
            assert certificate, "the tests' own certificates can be read"
            read.append(certificate)
        yield read
    finally:
        for certificate in read:
            ssl.X509_free(certificate)


def dane(
    chain: Sequence[bytes], records: Sequence[TlsaRecord], names: Sequence[str], now: float
) -> Verdict:
    """Verify *chain* (DER, leaf first) by TLSA *records*; *names*: the base domain, then others."""
    ssl = _library()
    client = ssl.SSL_new(_context())
    try:
        assert ssl.SSL_dane_enable(client, names[0].encode()) == 1
        ssl.SSL_set_hostflags(client, NO_PARTIAL_WILDCARDS)
        for name in names[1:]:
            assert ssl.SSL_add1_host(client, name.encode()) == 1
        usable = 0
        for record in records:
            added = ssl.SSL_dane_tlsa_add(
                client,
                record.usage,
                record.selector,
                record.matching_type,
                record.data,
                len(record.data),
            )
            usable += added == 1
        return Verdict(usable, _verify(client, chain, (), now, by_dane=True))
    finally:
        ssl.SSL_free(client)
        ssl.ERR_clear_error()


def pkix(
    chain: Sequence[bytes], authorities: Sequence[bytes], names: Sequence[str], now: float
) -> Verdict:
    """Verify *chain* (DER, leaf first) by *authorities*, and one of *names*."""
    ssl = _library()
    client = ssl.SSL_new(_context())
    try:
        ssl.SSL_set_hostflags(client, NO_PARTIAL_WILDCARDS)
        for name in names:
            assert ssl.SSL_add1_host(client, name.encode()) == 1
        return Verdict(0, _verify(client, chain, authorities, now, by_dane=False))
    finally:
        ssl.SSL_free(client)
        ssl.ERR_clear_error()


def _verify(
    client: Any, chain: Sequence[bytes], authorities: Sequence[bytes], now: float, *, by_dane: bool
) -> str:
    """What ssl_verify_cert_chain() does, at the time *now*."""
    ssl = _library()
    store, context = ssl.X509_STORE_new(), ssl.X509_STORE_CTX_new()
    stack = ssl.OPENSSL_sk_new_null()
    try:
        with _certificates(chain) as presented, _certificates(authorities) as trusted:
            for certificate in presented:
                ssl.OPENSSL_sk_push(stack, certificate)
            for certificate in trusted:
                ssl.X509_STORE_add_cert(store, certificate)
            assert ssl.X509_STORE_CTX_init(context, store, presented[0], stack) == 1
            parameters = ssl.X509_STORE_CTX_get0_param(context)
            ssl.X509_VERIFY_PARAM_set_auth_level(parameters, SECURITY_LEVEL)
            if by_dane:
                ssl.X509_STORE_CTX_set0_dane(context, ssl.SSL_get0_dane(client))
            ssl.X509_STORE_CTX_set_default(context, b"ssl_server")
            ssl.X509_VERIFY_PARAM_set1(parameters, ssl.SSL_get0_param(client))
            ssl.X509_VERIFY_PARAM_set_time(parameters, int(now))
            if ssl.X509_verify_cert(context) == 1:
                return ""
            code = ssl.X509_STORE_CTX_get_error(context)
            return str(ssl.X509_verify_cert_error_string(code).decode())
    finally:
        ssl.X509_STORE_CTX_free(context)
        ssl.X509_STORE_free(store)
        ssl.OPENSSL_sk_free(stack)


def signed_by_sha1(der: bytes, key: bytes) -> bytes:
    """The certificate *der* with another signature: by *key* (DER), and by SHA-1.

    Which the library cryptography makes no more, and servers still present.
    """
    ssl = _library()
    private = ssl.d2i_AutoPrivateKey(None, ctypes.byref(_TEXT(key)), len(key))
    try:
        with _certificates([der]) as (certificate,):
            assert ssl.X509_sign(certificate, private, ssl.EVP_sha1()) > 0
            length = ssl.i2d_X509(certificate, None)
            buffer = ctypes.create_string_buffer(length)
            ssl.i2d_X509(certificate, ctypes.byref(ctypes.cast(buffer, _TEXT)))
            return buffer.raw
    finally:
        ssl.EVP_PKEY_free(private)
