"""Many workers, one study: in SQLite, in a real PostgreSQL, and with one of them killed."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_trial import workers

WORKERS = 4


def binaries() -> Path | None:
    """Where PostgreSQL's programs are; Debian keeps them off the PATH."""
    found = shutil.which("initdb")
    if found:
        return Path(found).parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """URL of a database of its own, gone afterwards."""
    pytest.importorskip("psycopg", reason="psycopg is not installed; pip install 'aqr[postgres]'")
    programs = binaries()
    if programs is None:
        pytest.skip("PostgreSQL is not installed; apt-get install postgresql")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Short, because the path of a Unix socket may have 107 characters.
    place = Path(tempfile.mkdtemp(prefix="aqr-pg-", dir="/tmp"))
    unprivileged: dict[str, Any] = {}
    if os.geteuid() == 0:
        # PostgreSQL refuses to run as root.
        unprivileged = {"user": 65534, "group": 65534, "extra_groups": []}
        os.chown(place, 65534, 65534)
    data = place / "data"

    def run(*command: str) -> None:
        subprocess.run(
            command, check=True, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, **unprivileged
        )

    control = str(programs / "pg_ctl")
    try:
        run(str(programs / "initdb"), "-D", str(data), "-U", "aqr", "-A", "trust", "-N")
        options = f"-p {port} -k {place} -c listen_addresses=127.0.0.1 -c fsync=off"
        run(control, "-D", str(data), "-w", "-l", str(place / "log"), "-o", options, "start")
        try:
            yield f"postgresql://aqr@127.0.0.1:{port}/postgres"
        finally:
            run(control, "-D", str(data), "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(place, ignore_errors=True)


def trials(out: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((out / "study.json").read_text())["trials"]
    return found


def check_shared(out: Path, wanted: int) -> None:
    done = [trial for trial in trials(out) if trial["state"] == "complete"]
    assert len(done) == wanted
    assert len({tuple(trial["params"].values()) for trial in done}) == wanted
    served = {(out / trial["run"] / "worker").read_text() for trial in done}
    assert len(served) == WORKERS


def test_four_workers_share_an_sqlite_file(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert workers({"config": config, "out": out, "trials": 16}, WORKERS) == [0] * WORKERS
    check_shared(out, 16)


def test_four_workers_share_a_postgresql(config: Path, tmp_path: Path, postgresql: str) -> None:
    out = tmp_path / "out"
    options = {"config": config, "out": out, "trials": 16, "storage": postgresql}
    assert workers(options, WORKERS) == [0] * WORKERS
    check_shared(out, 16)
    assert not (out / "study.db").exists()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_killed_worker_loses_its_trial_and_no_more(
    request: pytest.FixtureRequest, config: Path, tmp_path: Path, database: str
) -> None:
    out = tmp_path / "out"
    options: dict[str, Any] = {"config": config, "out": out, "trials": 8}
    if database == "postgresql":
        options["storage"] = request.getfixturevalue("postgresql")
        renamed = config.with_name("killed.yaml")
        options["config"] = config.rename(renamed)
    codes = workers(options, 3, "deadly")
    assert sorted(code or 0 for code in codes) == [-9, 0, 0]
    found = {trial["number"]: trial for trial in trials(out)}
    assert sum(trial["state"] == "complete" for trial in found.values()) == 8
    assert found[2]["state"] == "failed"
    (again,) = (trial for trial in found.values() if trial["retry_of"] == 2)
    assert again["state"] == "complete"
    assert again["params"] == found[2]["params"]
