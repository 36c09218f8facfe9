"""Safetensors files that are equal where their content is."""

from __future__ import annotations

import json

__all__ = ["with_sorted_metadata"]


def with_sorted_metadata(content: bytes) -> bytes:
    """Return a safetensors file with its metadata in order; the library's order differs from one call to the next.

    Args:
        content: of a file that has metadata.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header = {"__metadata__": dict(sorted(header.pop("__metadata__").items())), **header}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # the numbers begin at a multiple of 8
    return len(encoded).to_bytes(8, "little") + encoded + content[end:]
