"""Logs -> `Run` -> comparison -> findings -> recommendation -> report.

Reads what training left behind (mmcv, mmengine, TensorBoard, our run folders), says what AQR did and which setting to
try next. Imports no PyTorch.
"""

from aqr.analysis.readers import read_run
from aqr.analysis.report import Report, analyze
from aqr.analysis.run import Run
from aqr.analysis.whatif import WhatIf, whatif

__all__ = ["Report", "Run", "WhatIf", "analyze", "read_run", "whatif"]
