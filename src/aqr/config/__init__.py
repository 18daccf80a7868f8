"""The schema of a config file.

A config is YAML. Everything has a default, a file states only what differs, an unknown key is an error, and
`section.key=value` overrides from the command line come last. Settings of AQR carry the names that people know
from earlier AQR experiments. `run.Config` holds all sections, `reading` gets one from a file; a section has a file of
its own.
"""

from aqr.config.adaptation import ControllerConfig, Ramp, Schedules
from aqr.config.aqr import DEFAULT_RESIDUAL, Aqr, Modulator, Renderer, Router
from aqr.config.data import BevAugmentation, Data, Failures, FailureShare, ImageAugmentation, SynthWorld
from aqr.config.detector import CmtEncoders, Denoising, DetectorConfig, ImageEncoder, LidarEncoder, Loss
from aqr.config.presets import PRESETS
from aqr.config.reading import load, parse
from aqr.config.run import Config
from aqr.config.section import Count, Fraction, NonNegative, Positive, Section
from aqr.config.sensors import Sensors
from aqr.config.train import Train

__all__ = [
    "DEFAULT_RESIDUAL",
    "PRESETS",
    "Aqr",
    "BevAugmentation",
    "CmtEncoders",
    "Config",
    "ControllerConfig",
    "Count",
    "Data",
    "Denoising",
    "DetectorConfig",
    "FailureShare",
    "Failures",
    "Fraction",
    "ImageAugmentation",
    "ImageEncoder",
    "LidarEncoder",
    "Loss",
    "Modulator",
    "NonNegative",
    "Positive",
    "Ramp",
    "Renderer",
    "Router",
    "Schedules",
    "Section",
    "Sensors",
    "SynthWorld",
    "Train",
    "load",
    "parse",
]
