"""The 13 tables of nuScenes v1.0, and tokens that depend on nothing but what they name."""

from __future__ import annotations

import hashlib
from typing import Any

from aqr.data.build import VISIBILITY_LEVELS
from aqr.data.tables import TABLES
from aqr.taxonomy import ATTRIBUTES, CAMERAS, CLASS_OF_CATEGORY, LIDAR

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def token(*parts: object) -> str:
    """32 hexadecimal digits, the same for the same parts."""
    return hashlib.md5("/".join(str(p) for p in parts).encode(), usedforsecurity=False).hexdigest()


def category_token(category: str) -> str:
    return token("category", category)


def attribute_token(attribute: str) -> str:
    return token("attribute", attribute)


def sensor_token(channel: str) -> str:
    return token("sensor", channel)


def visibility_level(visible: int, silhouette: int) -> str:
    """nuScenes' four levels: share of an object's pixels, over all cameras, that nothing hides."""
    share = visible / silhouette if silhouette else 0.0
    return str(1 + sum(share >= edge for edge in (0.4, 0.6, 0.8)))


def shared_tables() -> Tables:
    """The tables that are the same in every world."""
    return {
        "category": [
            {"token": category_token(name), "name": name, "description": f"Scored as {of}."}
            for name, of in CLASS_OF_CATEGORY.items()
        ],
        "attribute": [{"token": attribute_token(name), "name": name, "description": ""} for name in ATTRIBUTES],
        "visibility": [
            {
                "token": str(level),
                "level": name,
                "description": f"share of pixels, over all cameras, not hidden: {name}",
            }
            for name, level in VISIBILITY_LEVELS.items()
        ],
        "sensor": [
            {"token": sensor_token(LIDAR), "channel": LIDAR, "modality": "lidar"},
            *({"token": sensor_token(c), "channel": c, "modality": "camera"} for c in CAMERAS),
        ],
    }


def merge(scenes: list[Tables]) -> Tables:
    """All 13 tables of a data set from the rows of its scenes."""
    tables: Tables = {name: [] for name in TABLES}
    tables.update(shared_tables())
    for rows in scenes:
        for name, values in rows.items():
            tables[name] += values
    return tables
