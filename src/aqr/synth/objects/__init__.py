"""The ten classes: how large they are and what they are made of.

Shapes stand on the ground at the origin of their own frame, x along the heading; together they fill the annotated
box but for a small slack.
"""

from aqr.synth.objects.individual import Model, build
from aqr.synth.objects.sizes import MEAN_SIZE, SLACK

__all__ = ["MEAN_SIZE", "SLACK", "Model", "build"]
