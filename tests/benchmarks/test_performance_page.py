"""The pages about speed say what the kept figures say, and no ratio of theirs mixes ways to run."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.performance_page import (
    KEPT,
    PAGES,
    blocks,
    filled,
    headline,
    in_full,
    main,
    merged,
    rows_table,
    scaling,
    with_shares,
)

from aqr.bench.modulation import COMPILED_GRAPH


def kept() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in KEPT.values()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_come_out_of_the_kept_figures_as_they_are(page: Any) -> None:
    text = page.read_text(encoding="utf-8")
    assert filled(text, blocks(*kept())) == text
    assert "| not measured |" not in blocks(*kept())["headline"]


def test_kept_shares_divide_like_by_like() -> None:
    sections = kept()[0]["sections"]
    rows = {name: {row["what"]: row for row in section["rows"]} for name, section in sections.items()}
    graph = next(row for row in sections["aqr"]["rows"] if row["what"] == "the same compiled, as a CUDA graph")
    share = rows["step_graphs"]["AQR alone over the training step with it, compiled, with CUDA graphs"]
    step = rows["step_graphs"]["training step with AQR, compiled, with CUDA graphs"]
    assert share["value"] == pytest.approx(100 * graph["value"] / step["value"])
    plain = rows["step"]["AQR alone over the training step with it, plain"]
    alone = plain["value"] / 100 * rows["step"]["training step with AQR, plain"]["value"]
    assert alone == pytest.approx(sections["aqr"]["rows"][0]["value"])


def test_the_kept_profile_tells_the_kept_times() -> None:
    profile = json.loads((KEPT["bench"].parent / "profile-h200.json").read_text(encoding="utf-8"))
    sections = kept()[0]["sections"]
    for name, section in profile["sections"].items():
        assert [row for row in section["rows"] if "AQR alone" not in row["what"]] == [
            row for row in sections[name]["rows"] if "AQR alone" not in row["what"]
        ]
        assert section["remarks"] == sections[name]["remarks"]
    assert set(profile["profiles"]) == {
        f"{what} {w} AQR" for what in ("step", "inference") for w in ("with", "without")
    }


def test_shares_are_computed_across_runs_and_stay_where_they_are_known() -> None:
    whole = "training step with AQR, compiled, with CUDA graphs"
    share = "AQR alone over the training step with it, compiled, with CUDA graphs"
    shapes = [[row(f"forward + backward, {shape}", value=9.0), row(COMPILED_GRAPH, value=1.0)] for shape in "ab"]
    shapes[1][1]["value"] = 5.0
    sections = {
        "aqr": {"title": "", "rows": [*shapes[0], *shapes[1]], "remarks": []},
        "step_graphs": {"title": "", "rows": [row(whole, value=50.0), row(share)], "remarks": []},
    }
    found = with_shares(sections)
    assert found["aqr"] == sections["aqr"]
    assert found["step_graphs"]["rows"][0] == sections["step_graphs"]["rows"][0]
    assert found["step_graphs"]["rows"][1]["value"] == pytest.approx(2.0)
    assert found["step_graphs"]["rows"][1]["reached"]
    sections["step_graphs"]["rows"][1]["value"] = 1.5
    assert with_shares(sections) == sections
    assert with_shares({"step_graphs": sections["step_graphs"]}) == {"step_graphs": sections["step_graphs"]}


def test_rows_of_the_summary_can_stand_alone() -> None:
    memory = {**row("peak memory of it", value=3.0), "unit": "MB"}
    rows = in_full([row("forward", value=1.0), memory, row("the same compiled", value=2.0)])
    assert [found["what"] for found in rows] == ["forward", "peak memory of it", "AQR forward; compiled"]


def test_four_gpus_have_a_target_that_two_do_not_reach() -> None:
    one, two, four = ({"ranks": n, "efficiency": share} for n, share in ((1, None), (2, 0.82), (4, 0.96)))
    missing = scaling({"runs": [one, two]})
    assert (missing["value"], missing["reached"], missing["note"]) == (None, None, "on 2: 82.0 %")
    known = scaling({"runs": [one, two, four]})
    assert known["value"] == pytest.approx(96.0)
    assert known["reached"]


def row(what: str, **known: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("value", "target", "floor", "low", "high", "reached"))
    return {"what": what, "unit": "ms", "more_is_better": False, "note": "", **empty, **known}


def test_notes_are_printed_and_empty_columns_are_not() -> None:
    rows = [row("a", value=1.0, note="in a hurry"), row("b", note="no GPU")]
    assert rows_table(rows).splitlines()[::2] == ["| what | median | note |", "| a | 1 ms | in a hurry |"]
    assert rows_table(rows).splitlines()[3] == "| b | not measured | no GPU |"


def test_the_headline_counts_targets_and_says_what_is_missing() -> None:
    text = headline({}, [row("a", reached=True), row("b", reached=False), row("c")])
    assert text.count("| not measured |") == 6
    assert "1 of the 3 [targets](docs/performance.md#against-the-targets) are reached; not measured: c." in text


def bench(date: str, command: str, **sections: str) -> dict[str, Any]:
    about = {"device": "a GPU", "python": "3.12", "torch": "2.11", "triton": "3.6", "date": date, "command": command}
    found = {name: {"title": title, "rows": [row(name, value=1.0)], "remarks": []} for name, title in sections.items()}
    return {**about, "sections": found, "not_measured": {}}


def test_sections_of_later_files_take_the_place_of_earlier_ones() -> None:
    first = bench("Monday", "aqr bench --only aqr,step", aqr="old", step="old", growth="old")
    first["not_measured"] = {"inference": "no time", "loop": "no time"}
    second = bench("Monday", "aqr bench --only step,inference", step="new", inference="new")
    whole = merged([first, second])
    assert {name: section["title"] for name, section in whole["sections"].items()} == {
        "aqr": "old",
        "step": "new",
        "growth": "old",
        "inference": "new",
    }
    assert whole["not_measured"] == {"loop": "no time"}
    assert whole["command"] == "aqr bench --only aqr,step; aqr bench --only step,inference"
    assert whole["date"] == "Monday"
    assert merged([first]) == first
    found = blocks(whole, *kept()[1:])
    assert "**new**" in found["step"]
    assert "Monday, torch 2.11" in found["about"]
    with pytest.raises(ValueError, match=r"torch differs: '2\.11' and '2\.13'"):
        merged([first, {**second, "torch": "2.13"}])


def test_the_page_is_made_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, results = tmp_path / "page.md", {name: tmp_path / path.name for name, path in KEPT.items()}
    page.write_text("<!-- bench:aqr -->\n<!-- /bench -->\n<!-- bench:step -->\n<!-- /bench -->\n")
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for path, found in zip(files, (bench("a", "b", aqr="old", step="old"), bench("c", "d", step="new")), strict=True):
        path.write_text(json.dumps(found))
    others = [f"--{name}={KEPT[name]}" for name in ("ddp", "data")]
    monkeypatch.setattr("benchmarks.performance_page.PAGES", (page,))
    monkeypatch.setattr("benchmarks.performance_page.KEPT", results)
    monkeypatch.setattr("sys.argv", ["performance_page.py", *others, "--keep", "--bench", *map(str, files)])
    main()
    assert "**old**" in page.read_text()
    assert "**new**" in page.read_text()
    assert json.loads(results["bench"].read_text())["command"] == "b; d"
