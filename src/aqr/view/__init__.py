"""Pictures of a sample: the bird's-eye view and the camera images, with boxes and weight maps.

`Scene` holds what is drawn, in plain arrays; `scene_from_batch` and `scene_from_dataset` fill one, `draw_sample` draws
it, and `view_sample` shows the ground truth of a data set in one call.
"""

from aqr.view.adapt import scene_from_batch, scene_from_dataset
from aqr.view.bev import draw_bev
from aqr.view.cameras import draw_cameras
from aqr.view.sample import draw_sample, view_sample
from aqr.view.scene import Detections, Scene, WeightScale

__all__ = [
    "Detections",
    "Scene",
    "WeightScale",
    "draw_bev",
    "draw_cameras",
    "draw_sample",
    "scene_from_batch",
    "scene_from_dataset",
    "view_sample",
]
