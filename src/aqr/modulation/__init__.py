"""Adaptive Query Routing between the encoders and the decoder of a fusion detector: route, render, modulate.

`AQRModulation` is the public door; the steps are functions and modules of their own in `route`, `render`,
`modulate` and `measure`. `AttentionRouting` in `attend` gives the weights to the decoder's attention instead.
"""

from aqr.modulation.aqr import AQRModulation, AQROutput
from aqr.modulation.attend import AttentionRouting
from aqr.modulation.measure import Statistics, measure
from aqr.modulation.modulate import largest_factor

__all__ = ["AQRModulation", "AQROutput", "AttentionRouting", "Statistics", "largest_factor", "measure"]
