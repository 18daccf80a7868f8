"""Readers: whatever a run left behind -> `Run`."""

from aqr.analysis.readers.source import read_run

__all__ = ["read_run"]
