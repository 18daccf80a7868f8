"""The report in a browser: no error, every chart drawn, nothing cut off, in both languages, wide and narrow."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.analysis.logs import small_log
from tests.analysis.test_other_logs import run_folder
from tests.analysis.test_report import PNG

from aqr.analysis import analyze

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
CHARTS = {"losses", "loss-parts", "classes", "weights", "modulation", "maps", "whatif", "timings", "gradients"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install playwright)")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield running
        running.close()


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("reports")
    log = folder / "clamp2.5_residual0.6_with_a_rather_long_name.log"
    log.write_text(small_log(), encoding="utf-8")
    (folder / "scene.png").write_bytes(PNG)
    base = run_folder(folder / "without-aqr", aqr=False)
    return {
        lang: analyze(
            [log, run_folder(folder / lang / "with-aqr")],
            baseline=base,
            out=folder / f"report-{lang}",
            lang=lang,
            pictures=[folder / "scene.png"],
            reference_metrics={"mAP": 0.679},
            extra_rows={"untrained": {"mAP": 0.001}},
        ).html
        for lang in ("en", "zh")
    }


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_page(browser: Any, reports: dict[str, Path], lang: str, width: int, tmp_path: Path) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(reports[lang].as_uri())
    page.wait_for_function(
        "document.querySelectorAll('#charts figure').length > 0 && "
        "document.querySelectorAll('#charts figure:not([data-drawn])').length === 0"
    )
    assert said == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    drawn = page.evaluate(
        "[...document.querySelectorAll('#charts figure')].map(f => "
        "[f.id, f.querySelectorAll('svg.main-svg .trace, svg.main-svg .hm, svg.main-svg .contour').length])"
    )
    assert {name for name, _ in drawn} == CHARTS
    assert all(marks > 0 for _, marks in drawn)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate("document.querySelector('.gallery img').naturalWidth") == 1
    assert page.get_attribute("html", "lang") == {"en": "en", "zh": "zh-Hans"}[lang]
    overlaps = page.evaluate(OVERLAPS)
    assert overlaps == []
    before = page.evaluate(WIDTHS)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert set(page.evaluate(WIDTHS)) == {335}
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(WIDTHS) == before
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


WIDTHS = "[...document.querySelectorAll('#charts .main-svg:first-child')].map(svg => svg.width.baseVal.value)"
OVERLAPS = """
() => {
  const found = [];
  for (const figure of document.querySelectorAll('#charts figure')) {
    const legend = figure.querySelector('.legend');
    if (!legend) continue;
    const box = legend.getBoundingClientRect();
    for (const other of figure.querySelectorAll('.xtitle, .ytitle, .cartesianlayer .plot, .annotation')) {
      const at = other.getBoundingClientRect();
      const beside = at.right <= box.left || box.right <= at.left;
      const apart = beside || at.bottom <= box.top + 1 || box.bottom <= at.top + 1;
      if (at.width && at.height && !apart) found.push([figure.id, other.getAttribute('class')]);
    }
  }
  return found;
}
"""
"""Legends that cover a title, the curves or a label."""


HOLES = """
() => {
  const charts = document.querySelector('.charts').getBoundingClientRect();
  const rows = new Map();
  for (const figure of document.querySelectorAll('#charts figure')) {
    const box = figure.getBoundingClientRect();
    rows.set(Math.round(box.top), (rows.get(Math.round(box.top)) || 0) + box.width);
  }
  return [...rows.values()].filter(width => width < 0.9 * charts.width);
}
"""
"""Rows of charts that leave a cell empty."""


def test_rows_of_charts_are_full_and_phones_see_every_metric(browser: Any, reports: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(reports["en"].as_uri())
    page.wait_for_selector("#charts figure:last-child[data-drawn]")
    assert page.evaluate(HOLES) == []
    page.set_viewport_size({"width": 360, "height": 800})
    for cell in page.query_selector_all("#results td"):
        box = cell.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    page.close()


def test_the_axis_of_weights_spans_a_tenth(browser: Any, reports: dict[str, Path]) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(reports["en"].as_uri())
    page.wait_for_selector("#weights[data-drawn]")
    low, high = page.evaluate("document.querySelector('#weights .chart').layout.yaxis.range")
    assert high - low >= 0.1 - 1e-9
    page.close()
