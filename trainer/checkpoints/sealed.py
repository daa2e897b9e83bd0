"""JSON files that carry a checksum of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from trainer.errors import DataError


def seal(content: Mapping[str, Any]) -> bytes:
    """Return JSON that holds `content` and its checksum.

    Raises:
        TypeError, ValueError: `content` is no JSON.
    """
    plain = json.loads(json.dumps(content))  # as it will be read: every key is a string
    sealed = {"sha256": _checksum(plain), "content": plain}
    return json.dumps(sealed, indent=1).encode()


def unseal(raw: bytes, where: str) -> dict[str, Any]:
    """Return the content of what `seal` returned.

    Args:
        raw: The file.
        where: Its name, for messages.

    Raises:
        DataError: It is something else, or has been changed.
    """
    try:
        sealed = json.loads(raw)
        content, expected = sealed["content"], sealed["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{where}: expected JSON with a content and its sha256; received {len(raw)} bytes of"
            f" something else ({error!r})"
        ) from error
    received = _checksum(content)
    if received != expected or not isinstance(content, dict):
        raise DataError(
            f"{where}: expected content with the sha256 {expected}; received {received}"
        )
    return content


def _checksum(content: Any) -> str:
    """Return the SHA-256 of a JSON value, however it is spaced."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
