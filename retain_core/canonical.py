"""Canonical JSON and the hashes made from it: one value, one text, one key."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; pydantic models are dumped first. Raises on NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain)


def digest(value: Any, length: int = 32) -> str:
    """SHA-256 of the canonical JSON, `length` hex digits of it."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def hash64(text: str) -> int:
    """A signed 64-bit hash of a text: the key of an item in the hot table."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no canonical JSON")
