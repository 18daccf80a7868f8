"""Settings that win over others."""

from __future__ import annotations

from typing import Any


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Nested settings `old`, and where `new` states the same key, what that says."""
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged
