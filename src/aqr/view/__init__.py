"""Pictures of a sample: the bird's-eye view and the camera images, with boxes and weight maps.

`Scene` holds what is drawn, in plain arrays; `draw_sample` draws it.
"""

from aqr.view.bev import draw_bev
from aqr.view.cameras import draw_cameras
from aqr.view.sample import draw_sample
from aqr.view.scene import Detections, Scene, WeightScale

__all__ = ["Detections", "Scene", "WeightScale", "draw_bev", "draw_cameras", "draw_sample"]
