"""Search over config keys: many trainings, one study, on one machine or many.

Importing this package imports optuna and Lightning, which takes seconds.
"""

from aqr.sweep.settings import SweepSettings, load_settings
from aqr.sweep.space import Dimension, parse_search
from aqr.sweep.worker import Outcome, sweep

__all__ = ["Dimension", "Outcome", "SweepSettings", "load_settings", "parse_search", "sweep"]
