"""A synthetic world, written as nuScenes v1.0 tables, good enough to learn from.

The public door is `write_world`. It is NumPy: no network, no GPU and no download is needed. `aqr.synth.device` renders
the same world with PyTorch, for a GPU; `aqr.synth.live` without writing it.
"""

from aqr.synth.presets import PRESETS, Preset, PresetName
from aqr.synth.world import write_world

__all__ = ["PRESETS", "Preset", "PresetName", "write_world"]
