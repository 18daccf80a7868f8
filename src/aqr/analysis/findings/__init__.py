"""What the data of a run say, each with its evidence, a severity and the source of its threshold."""

from aqr.analysis.findings.finding import Context, Finding, Severity, find_all

__all__ = ["Context", "Finding", "Severity", "find_all"]
