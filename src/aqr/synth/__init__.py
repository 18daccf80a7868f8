"""A synthetic world, written as nuScenes v1.0 tables, good enough to learn from.

The public door is `write_world`. Everything here is NumPy: no network, no GPU and no download is needed.
"""

from aqr.synth.presets import PRESETS, Preset, PresetName
from aqr.synth.world import write_world

__all__ = ["PRESETS", "Preset", "PresetName", "write_world"]
