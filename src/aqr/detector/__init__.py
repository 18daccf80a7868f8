"""A CMT-style LiDAR-camera detector in plain PyTorch, with AQR as one switch."""

from aqr.detector.coding import Detections, attribute_names
from aqr.detector.detector import Detector, DetectorOutput, Predictions

__all__ = ["Detections", "Detector", "DetectorOutput", "Predictions", "attribute_names"]
