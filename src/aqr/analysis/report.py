"""`analyze`: runs in, a report out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from aqr.analysis.comparison import compare
from aqr.analysis.document import document
from aqr.analysis.findings import Context, Finding, find_all
from aqr.analysis.findings.finding import SEVERITIES
from aqr.analysis.findings.study import study_findings, study_verdict
from aqr.analysis.forecast import anchors_of
from aqr.analysis.html import html_report
from aqr.analysis.language import Translator
from aqr.analysis.markdown import markdown_report
from aqr.analysis.readers import read_run
from aqr.analysis.readers.run_folder import evaluation_of_summary
from aqr.analysis.readers.study import is_study, read_study
from aqr.analysis.recommend import Recommendation, recommend
from aqr.analysis.run import METRICS, Run
from aqr.analysis.studied import examine
from aqr.analysis.verdict import verdict
from aqr.analysis.whatif import WhatIf, whatif
from aqr.errors import InputError
from aqr.files import replacing

GRID_CLAMPS: Final = tuple(1.0 + 0.25 * step for step in range(13))
GRID_RESIDUALS: Final = tuple(round(0.5 + 0.02 * step, 2) for step in range(21))


@dataclass(frozen=True)
class Report:
    """A finished report.

    Attributes:
        verdict: three sentences.
        data: what report.json holds.
        html, markdown, json: the files.
    """

    verdict: str
    data: dict[str, Any]
    html: Path
    markdown: Path
    json: Path


def analyze(
    runs: Sequence[str | Path],
    *,
    baseline: str | Path | None = None,
    out: str | Path,
    lang: str = "en",
    reference_metrics: Mapping[str, float] | None = None,
    pictures: Sequence[str | Path] = (),
    extra_rows: Mapping[str, Mapping[str, Any]] | None = None,
    intervals: bool = True,
) -> Report:
    """Read runs, compare them, say what AQR did and what to try next, and write report.html, report.md and report.json.

    Args:
        runs: logs, TensorBoard folders, run folders, or folders of `aqr sweep`. The report is mainly about the first
            run that uses AQR, or about the study where there are no runs.
        baseline: the run without AQR that was trained the same way. Where none is given and exactly one of `runs` is
            known not to use AQR, that one serves.
        out: folder for the report; made where missing.
        lang: `en` or `zh`.
        reference_metrics: scores of some other model (mAP, NDS, …, as fractions) that the user compares with.
        pictures: PNG files for the gallery.
        extra_rows: further rows for the table of results: name -> metrics, such as `{"untrained": {"mAP": 0.001}}`, or
            the devkit's metrics summary.
        intervals: resample the scenes of the split where both runs kept their detections and the data set is at hand.

    Returns:
        The report, its files written.

    Raises:
        InputError: naming what cannot be read, or an unknown language or metric.
    """
    translate = Translator(lang)
    if not runs:
        raise InputError("no run is given; name at least one log, TensorBoard folder or run folder")
    _check_metrics(reference_metrics or {}, "the reference")
    rows = {name: _figures(name, row) for name, row in (extra_rows or {}).items()}
    studies = [examine(read_study(path)) for path in runs if is_study(path)]
    read = [read_run(path) for path in runs if not is_study(path)]
    base = read_run(baseline) if baseline is not None else _without_aqr(read)
    if studies and not read and base is not None:
        raise InputError(f"{baseline}: a study has no baseline; leave --baseline out")
    if base is not None and all(base is not run for run in read):
        read.append(base)
    read = _distinct(read)
    base = None if base is None else next(run for run in read if run.source == base.source)
    comparisons = {
        run.name: compare(run, base, resample=intervals) for run in read if base is not None and run is not base
    }
    findings: list[Finding] = []
    recommendations: list[Recommendation] = []
    grids: list[WhatIf] = []
    for run in read:
        comparison = comparisons.get(run.name)
        reference = reference_metrics or {} if run is not base else {}
        findings += find_all(Context(run, base if comparison else None, comparison, reference))
        if run.uses_aqr:
            recommendations += recommend(run, comparison)
            if anchors_of(run):
                grids.append(whatif(run, GRID_CLAMPS, GRID_RESIDUALS))
    for studied in studies:
        findings += study_findings(studied)
    findings.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    main = _main(read, base) if read else None
    if main is None:
        sentences = study_verdict(studies[0])
    else:
        sentences = verdict(
            main,
            comparisons.get(main.name),
            [finding for finding in findings if finding.run == main.name],
            [one for one in recommendations if one.run == main.name],
        )
    data = document(
        read,
        main,
        list(comparisons.values()),
        findings,
        recommendations,
        grids,
        sentences,
        rows,
        studies,
        translate,
    )
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another folder for the report") from None
    report = Report(
        verdict=translate.sentences(data["verdict"]),
        data=data,
        html=folder / "report.html",
        markdown=folder / "report.md",
        json=folder / "report.json",
    )
    page = html_report(data, [Path(path) for path in pictures], translate)
    _write(report.json, json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    _write(report.markdown, markdown_report(data, translate))
    _write(report.html, page)
    return report


def _figures(name: str, row: Mapping[str, Any]) -> Mapping[str, float]:
    if "mean_ap" in row:
        return evaluation_of_summary(row).figures
    _check_metrics(row, name)
    return row


def _check_metrics(metrics: Mapping[str, float], owner: str) -> None:
    for name, value in metrics.items():
        if name not in METRICS:
            raise InputError(f"{owner}: metric {name!r} is not known; use {', '.join(METRICS)}")
        if name in ("mAP", "NDS") and not 0 <= value <= 1:
            raise InputError(f"{owner}: {name} {value:g} is no fraction; write 67.9 % as 0.679")


def _without_aqr(runs: Sequence[Run]) -> Run | None:
    plain = [run for run in runs if run.uses_aqr is False]
    return plain[0] if len(plain) == 1 and len(runs) > 1 else None


def _distinct(runs: Sequence[Run]) -> list[Run]:
    """Each source once, under names that tell the runs apart."""
    out: list[Run] = []
    for run in runs:
        if any(run.source == other.source for other in out):
            continue
        name, number = run.name, 2
        while any(name == other.name for other in out):
            name, number = f"{run.name} ({number})", number + 1
        out.append(replace(run, name=name))
    return out


def _main(runs: Sequence[Run], baseline: Run | None) -> Run:
    return next((run for run in runs if run is not baseline and run.uses_aqr), runs[0])


def _write(path: Path, content: str) -> None:
    with replacing(path) as partial:
        # YAML lets half a character through ("\ud800"), UTF-8 does not.
        partial.write_bytes(content.encode("utf-8", "replace"))
