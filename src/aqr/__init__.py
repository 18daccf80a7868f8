"""Adaptive Query Routing for LiDAR-camera 3D object detection.

The public door is `aqr.AQRModulation`. It is imported on first use, so that tools that need no network
(`aqr analyze`, `aqr score`) start without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aqr.modulation import AQRModulation, AQROutput

__all__ = ["AQRModulation", "AQROutput"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in __all__:
        from aqr import modulation

        return getattr(modulation, name)
    raise AttributeError(f"module 'aqr' has no attribute {name!r}")
