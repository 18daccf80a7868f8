"""A CMT-style LiDAR-camera detector in plain PyTorch, with AQR as one switch."""

from aqr.detector.coding import Detections, attribute_names
from aqr.detector.detector import Detector, DetectorOutput, Predictions
from aqr.detector.graph import GraphedDetector

__all__ = ["Detections", "Detector", "DetectorOutput", "GraphedDetector", "Predictions", "attribute_names"]
