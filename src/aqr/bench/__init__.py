"""`aqr bench`: how fast AQR and the detector are on this machine, beside what the hardware allows."""

from aqr.bench.bench import STAGES, bench
from aqr.bench.results import Results, Row, Section

__all__ = ["STAGES", "Results", "Row", "Section", "bench"]
