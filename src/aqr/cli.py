"""The command line: every verb parses, calls one function and prints."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from aqr import __version__
from aqr.errors import InputError

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

convert = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Bring weights from other projects.")
app.add_typer(convert, name="convert")

Root = Annotated[Path, typer.Option("--data", help="Folder of a nuScenes-format data set.")]
Version = Annotated[str, typer.Option(help="Version folder in it, such as v1.0-mini.")]
Split = Annotated[str, typer.Option(help="Official split, such as mini_val.")]
OtherRoot = Annotated[Path | None, typer.Option("--data", help="Data set; by default the run's.")]
OtherVersion = Annotated[str | None, typer.Option("--version", help="Version folder; by default the run's.")]
OtherSplit = Annotated[str | None, typer.Option("--split", help="Split; by default the run's val_split.")]
Trained = Annotated[Path, typer.Argument(metavar="RUN|CKPT", help="Run folder or checkpoint.")]


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"aqr {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Adaptive Query Routing for LiDAR-camera 3D object detection."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for data, runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the world and of training.")] = 0,
) -> None:
    """Make a synthetic data set, fine-tune a detector without and with AQR, score both and write a report."""
    from aqr.demo import run_demo

    run_demo(out, seed)


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for the data set.")],
    scenes: Annotated[int | None, typer.Option(min=1, help="Number of scenes; by default the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another world.")] = 0,
    preset: Annotated[Literal["tiny", "small", "full"], typer.Option(help="Size of images and scenes.")] = "tiny",
    version: Annotated[str | None, typer.Option(help="By default v1.0-mini for up to ten scenes.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per core.")] = None,
    device: Annotated[
        str, typer.Option(help="cpu; cuda renders on all GPUs of this machine, cuda:1 on one of them.")
    ] = "cpu",
    weather: Annotated[
        list[str] | None, typer.Option(help='Kind that occurs, such as "Night"; may be given again. By default all.')
    ] = None,
) -> None:
    """Write a synthetic world in nuScenes format; a config with data.kind: synth learns from it without a folder."""
    from aqr.demo import write_world_with_progress

    write_world_with_progress(
        out,
        scenes=scenes,
        seed=seed,
        preset=preset,
        version=version,
        workers=workers,
        device=device,
        weather=weather or (),
    )


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="YAML config; see configs/.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value]...")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Run folder; by default runs/<name of the config>.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's last checkpoint.")] = False,
) -> None:
    """Train a detector and score it."""
    from aqr.config import load

    settings = load(config, overrides or ())
    from aqr.training import train as run  # only now: it takes seconds

    run(settings, run_dir or Path("runs") / config.stem, resume)


@app.command("eval")
def evaluate(
    run: Trained,
    data: OtherRoot = None,
    version: OtherVersion = None,
    split: OtherSplit = None,
    corrupt: Annotated[
        str | None,
        typer.Option(metavar="NAME[:SEVERITY]|all", help="Score under sensor failures as well; several with commas."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for results.json and metrics.json.")] = None,
) -> None:
    """Detect, write a nuScenes submission and score it."""
    from aqr.training import evaluate as run_evaluation
    from aqr.training import evaluate_failures

    if corrupt is None:
        run_evaluation(run, root=data, version=version, split=split, out=out)
    else:
        evaluate_failures(run, corrupt, root=data, version=version, split=split, out=out)


@app.command()
def predict(
    run: Trained,
    out: Annotated[Path, typer.Option(help="results.json to write, a nuScenes submission.")],
    data: OtherRoot = None,
    version: OtherVersion = None,
    split: OtherSplit = None,
) -> None:
    """Detect and write a nuScenes submission."""
    from aqr.training import predict as run_prediction

    run_prediction(run, out, root=data, version=version, split=split)


@app.command()
def score(
    results: Annotated[Path, typer.Argument(help="results.json, a nuScenes submission.")],
    data: Root,
    version: Version,
    split: Split,
    out: Annotated[Path, typer.Option(help="metrics.json to write.")],
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Add 95 % intervals, from this many resamples of the scenes.")
    ] = 0,
    baseline: Annotated[Path | None, typer.Option(help="Another submission for the split, to compare with.")] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Score by distance, visibility, LiDAR points, light and weather too.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Draw precision over recall: PNG, SVG or PDF.")] = None,
) -> None:
    """Score a submission: the devkit's metrics, and the tables on the terminal."""
    from rich.console import Console

    from aqr.scoring import score_files, score_tables

    summary = score_files(
        results, data, version, split, out, bootstrap=bootstrap, baseline=baseline, breakdown=breakdown, picture=picture
    )
    console = Console()
    for table in score_tables(summary, results.stem):
        console.print(table)


@app.command()
def analyze(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, training logs or folders of a sweep.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.md and report.json.")],
    baseline: Annotated[Path | None, typer.Option(help="The run to compare with.")] = None,
    lang: Annotated[str, typer.Option(help="en or zh.")] = "en",
    reference_metrics: Annotated[
        str | None, typer.Option(help="Known metrics to compare with, such as mAP=0.679,NDS=0.708.")
    ] = None,
) -> None:
    """Read runs, say what AQR did there, and name the next setting."""
    from aqr.analysis import analyze as run_analysis

    reference = None if reference_metrics is None else _numbers_by_name("--reference-metrics", reference_metrics)
    report = run_analysis(runs, baseline=baseline, out=out, lang=lang, reference_metrics=reference)
    typer.echo(report.verdict)
    typer.echo(str(out / "report.html"))


@app.command()
def whatif(
    run: Annotated[Path, typer.Argument(help="Run folder or training log.")],
    clamp: Annotated[str, typer.Option(help="Values of max_weight_clamp, such as 1.5,2.0,2.5.")],
    residual: Annotated[str, typer.Option(help="Values of residual_weight, such as 0.6,0.65,0.7.")],
) -> None:
    """Forecast what another clamp or residual would do to the features of a run."""
    from rich.console import Console

    from aqr.analysis import whatif as forecast
    from aqr.analysis.terminal import whatif_table

    grid = forecast(run, _numbers("--clamp", clamp), _numbers("--residual", residual))
    Console().print(whatif_table(grid))


@app.command()
def sweep(
    config: Annotated[Path, typer.Argument(help="YAML config that all trials share.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[section.key=value]...")] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=LOW..HIGH[:log]|A,B,C", help="A config key to search; once per key."),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="YAML file with a section `sweep:`; options win over it.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all, over all workers; by default 20.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="mAP, NDS, resistance, or several with commas; by default mAP.")
    ] = None,
    pruner: Annotated[
        Literal["median", "hyperband", "none"] | None,
        typer.Option(help="End weak trials early; by default median where train.val_every is set."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database that workers share; by default SQLite in the folder.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name in the storage; by default the config's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the search.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; by default sweeps/<name of the config>.")] = None,
) -> None:
    """Search over config keys; several workers may share the trials."""
    from aqr.sweep import load_settings
    from aqr.sweep import sweep as run

    entries = None if not search else dict(_entry(text) for text in search)
    objectives = None if objective is None else [name.strip() for name in objective.split(",")]
    settings = load_settings(space, search=entries, trials=trials, objective=objectives, pruner=pruner, seed=seed)
    outcome = run(
        config,
        out or Path("sweeps") / config.stem,
        settings,
        overrides=overrides or (),
        storage=storage,
        study=study,
        say=typer.echo,
    )
    typer.echo(outcome.line())
    typer.echo(str(outcome.file))


@app.command()
def view(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")],
    data: OtherRoot = None,
    version: OtherVersion = None,
    sample: Annotated[str, typer.Option(help="Sample token, or its number in the split.")] = "0",
    split: Annotated[str | None, typer.Option(help="Split; by default the run's val_split, or all samples.")] = None,
    run: Annotated[Path | None, typer.Option(help="Run or checkpoint whose boxes and weight maps are drawn.")] = None,
    sweeps: Annotated[int, typer.Option(min=0, max=10, help="Earlier LiDAR sweeps added; with --run, the run's.")] = 0,
) -> None:
    """Draw a sample: bird's-eye view and cameras with boxes and, with --run, what the detector makes of it."""
    which: int | str = int(sample) if sample.isdecimal() else sample
    if run is None:
        if data is None or version is None:
            raise InputError("--data and --version say what to draw; give both, or a trained detector with --run")
        from aqr.view import view_sample

        pictures = view_sample(data, version, out, which, split=split, sweeps=sweeps)
    else:
        from aqr.training import view_run

        pictures = view_run(run, out, [which], root=data, version=version, split=split)
    for picture in pictures:
        typer.echo(str(picture))


@app.command()
def bench(
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME[,NAME]", help="aqr, accuracy, loop, step, inference, growth; by default all."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file, rewritten after every measurement.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw how AQR's cost grows: PNG, SVG or PDF.")] = None,
    budget_s: Annotated[float, typer.Option(min=0.0, help="No measurement starts after this many seconds.")] = 900.0,
    seconds: Annotated[float, typer.Option(min=0.0, help="How long each figure is measured.")] = 2.0,
    compiled: Annotated[bool, typer.Option(help="Measure the compiled detector too, on a GPU.")] = True,
) -> None:
    """Measure AQR and the detector on this machine, beside targets and what the hardware allows."""
    from aqr.bench import bench as run_bench

    names = [] if only is None else only.split(",")
    run_bench(names, out, picture, budget_s=budget_s, seconds=seconds, compiled=compiled)


@convert.command("cmt")
def convert_cmt(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint of CMT, such as epoch_20.pth.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Run folder to make.")],
    config: Annotated[
        Path | None, typer.Option(help="Config of the detector; by default read off the checkpoint.")
    ] = None,
) -> None:
    """Turn a CMT checkpoint into a run folder for eval, predict and train.init_from."""
    from aqr.cmt import convert_cmt as run_conversion

    conversion = run_conversion(checkpoint, out, config)
    for line in conversion.lines():
        typer.echo(line)
    typer.echo(str(conversion.folder))


def _entry(text: str) -> tuple[str, str]:
    key, equals, right = text.partition("=")
    if not equals or not key:
        raise InputError(f"--search {text!r}: write key=low..high, key=low..high:log or key=a,b,c")
    return key, right


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option}: {text!r} is not of the form number,number") from None


@convert.command("check-infos")
def check_infos(
    infos: Annotated[Path, typer.Argument(metavar="INFOS", help="Info file of mmdet3d, either form.")],
    data: Root,
    version: Annotated[str | None, typer.Option(help="Version folder; by default the one that the file names.")] = None,
) -> None:
    """Compare an mmdet3d info file with the nuScenes tables that training reads."""
    from aqr.cmt import check_infos as run_check

    for line in run_check(infos, data, version).lines():
        typer.echo(line)


def _numbers_by_name(option: str, text: str) -> dict[str, float]:
    try:
        pairs = [part.split("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, value in pairs}
    except ValueError:
        raise InputError(f"{option}: {text!r} is not of the form name=number,name=number") from None


def main() -> Any:
    """Entry point: a user's mistake ends with one sentence and exit code 2."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return app()
    except InputError as error:
        print(f"aqr: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
