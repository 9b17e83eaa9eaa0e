"""Compress with zstd, as logrotate may be told to."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression.zstd import CompressionParameter, compress
else:
    from backports.zstd import CompressionParameter, compress


def zstd(content: bytes, level: int = 3) -> bytes:
    """What the program zstd makes of *content*: with a checksum."""
    options: dict[int, int] = {
        CompressionParameter.compression_level: level,
        CompressionParameter.checksum_flag: 1,
    }
    return compress(content, options=options)
