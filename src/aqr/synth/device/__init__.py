"""The synthetic world rendered by PyTorch, many moments and cameras at once, for a GPU.

It draws what `aqr.synth.camera` and `aqr.synth.lidar` draw, with the same random numbers; pixels and echoes differ only
where rounding decides. The public door is `Renderer`.
"""

from aqr.synth.device.film import Sight
from aqr.synth.device.pool import Pool, Shot
from aqr.synth.device.renderer import Renderer

__all__ = ["Pool", "Renderer", "Shot", "Sight"]
