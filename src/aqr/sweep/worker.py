"""A worker: takes trials from a study until there are enough.

Any number of workers may share a study. Trials carry numbers in the order in which they were asked for; a trial
counts unless its worker was interrupted or went silent, and one that finds enough trials before it steps back. So
`trials` is exact, however many workers ask at once.
"""

from __future__ import annotations

import json
import logging
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from aqr.config import Config
from aqr.errors import InputError
from aqr.files import replacing
from aqr.sweep.export import ERROR, HOST, RUN, SCORES, SURPLUS, study_document
from aqr.sweep.settings import SweepSettings
from aqr.sweep.space import Dimension, parse_search, with_values
from aqr.sweep.storage import open_storage, open_study, shown, sqlite_url
from aqr.sweep.trial import RunTrial, train_and_score

MAY_DIFFER: Final = (
    ("data", "root"),
    ("data", "workers"),
    ("train", "init_from"),
    ("train", "log_every"),
    ("train", "stats_every"),
    ("train", "checkpoint_every"),
)
"""Settings that may differ between the machines of one study."""

logger = logging.getLogger(__name__)


class _StepBack(Exception):
    """The trial is not needed."""


@dataclass(frozen=True)
class Outcome:
    """What a study has found.

    Attributes:
        file: study.json.
        complete: trials that were trained to the end.
        pruned: trials that were ended early.
        failed: trials whose settings could not be trained.
        best: numbers of the trials that no other beats in all objectives.
        document: what study.json holds.
    """

    file: Path
    complete: int
    pruned: int
    failed: int
    best: tuple[int, ...]
    document: Mapping[str, Any]

    def line(self) -> str:
        """How many trials there were and what the best of them reached, in one line."""
        by_number = {trial["number"]: trial for trial in self.document["trials"]}
        best = "; ".join(
            f"trial {number}: "
            + ", ".join(f"{name} {value:.4f}" for name, value in by_number[number]["values"].items())
            for number in self.best
        )
        return f"{self.complete} complete, {self.pruned} ended early, {self.failed} failed; best {best or 'none'}"


def sweep(
    config: str | Path,
    out: str | Path,
    settings: SweepSettings,
    *,
    overrides: Sequence[str] = (),
    storage: str | None = None,
    study: str | None = None,
    run_trial: RunTrial = train_and_score,
    say: Callable[[str], None] = logger.info,
) -> Outcome:
    """Search over config keys.

    Start as many workers as there are GPUs, each with the same arguments and one GPU to see: they share the trials.
    A worker that is started again after a crash or a stop goes on with the study; a trial whose worker went silent is
    tried again by another one. A worker stays until the last trial of all workers has ended.

    Args:
        config: YAML config that the trials share.
        out: folder for the trials' run folders trial-0000, trial-0001 … and study.json.
        settings: what is searched and how.
        overrides: `section.key=value` for all trials.
        storage: database URL; by default an SQLite file in `out`, for workers on one machine.
        study: name within the storage; by default the config's.
        run_trial: trains and scores one trial.
        say: takes a line per trial.

    Returns:
        Outcome, after study.json was written.

    Raises:
        InputError: where a setting, the storage or the data cannot be used, or the study there is about something else.
    """
    path, folder = Path(config), Path(out)
    dimensions = parse_search(path, overrides, settings.search)
    base = with_values(path, overrides, {})
    if base.train.devices > 1:
        raise InputError(f"{path}: train.devices must be 1 in a sweep; start a worker per GPU instead")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); choose another --out") from None
    with _quiet_optuna(), _said_of(storage or sqlite_url(folder)):
        opened = open_study(
            open_storage(storage or sqlite_url(folder), settings.heartbeat),
            study or path.stem,
            settings,
            base.train.val_every,
            base.train.steps,
        )
        worker = _Worker(opened, path, tuple(overrides), folder, settings, dimensions, base, run_trial, say)
        worker.agree()
        worker.work()
        return worker.export()


@dataclass
class _Worker:
    study: optuna.Study
    path: Path
    overrides: tuple[str, ...]
    folder: Path
    settings: SweepSettings
    dimensions: tuple[Dimension, ...]
    base: Config
    run_trial: RunTrial
    say: Callable[[str], None]

    def agree(self) -> None:
        """Make sure that all workers of the study search for the same thing."""
        shared = self.base.model_dump(mode="json")
        for section, key in MAY_DIFFER:
            del shared[section][key]
        ours = {
            "search": [dimension.as_dict() for dimension in self.dimensions],
            "objective": list(self.settings.objective),
            "config": shared,
        }
        ours = json.loads(json.dumps(ours))
        theirs = self.study.user_attrs.get("sweep")
        if theirs is None:
            self.study.set_user_attr("sweep", ours)
            return
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise InputError(
                    f"study {self.study.study_name!r} was begun with another {name}; use the same, or name another "
                    "--study or --out"
                )

    def work(self) -> None:
        """Take trials until enough have ended."""
        while True:
            trials = self.study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in trials)
            if waiting or sum(map(_counts, trials)) < self.settings.trials:
                self.study.optimize(self._objective, n_trials=1, catch=(_StepBack,))
                self.export()
            elif any(trial.state == TrialState.RUNNING for trial in trials):
                # Others are at work; should one of them go silent, its trial is taken over.
                time.sleep(min(self.settings.heartbeat, 5.0))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                    optuna.storages.fail_stale_trials(self.study)
            else:
                return

    def export(self) -> Outcome:
        """Write study.json."""
        document = study_document(
            self.study,
            self.settings.objective,
            [dimension.as_dict() for dimension in self.dimensions],
            self.base.model_dump(mode="json"),
        )
        file = self.folder / "study.json"
        with replacing(file) as partial:
            partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        states = [trial["state"] for trial in document["trials"]]
        errors = sum(trial["error"] is not None for trial in document["trials"])
        return Outcome(
            file, states.count("complete"), states.count("pruned"), errors, tuple(document["best"]), document
        )

    def _objective(self, trial: optuna.Trial) -> float | list[float]:
        earlier = [one for one in self.study.get_trials(deepcopy=False) if one.number < trial.number]
        if sum(map(_counts, earlier)) >= self.settings.trials:
            trial.set_user_attr(SURPLUS, True)
            raise _StepBack
        values = {dimension.key: dimension.suggest(trial) for dimension in self.dimensions}
        name = f"trial-{trial.number:04d}"
        trial.set_user_attr(RUN, name)
        trial.set_user_attr(HOST, socket.gethostname())
        objectives = self.settings.objective
        shown = "  ".join(
            f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items()
        )

        def report(step: int, scores: Mapping[str, float]) -> None:
            if len(objectives) > 1 or objectives[0] not in scores:
                return
            trial.report(scores[objectives[0]], step)
            if trial.should_prune():
                self.say(f"{name}  ended at step {step}  {shown}")
                raise optuna.TrialPruned

        try:
            config = with_values(self.path, self.overrides, values)
            scores = self.run_trial(config, self.folder / name, self.settings, report)
        except InputError as error:
            if isinstance(error.__context__, OSError):
                raise  # a full disk, say: no fault of these settings
            if not any(one.state in (TrialState.COMPLETE, TrialState.PRUNED) for one in earlier):
                raise
            trial.set_user_attr(ERROR, str(error))
            self.say(f"{name}  failed: {error}")
            raise _StepBack from error
        trial.set_user_attr(SCORES, dict(scores))
        self.say(f"{name}  " + "  ".join(f"{key} {value:.4f}" for key, value in scores.items()) + f"  {shown}")
        found = [scores[objective] for objective in objectives]
        return found[0] if len(found) == 1 else found


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of the number that was asked for."""
    if trial.state == TrialState.FAIL:
        return ERROR in trial.user_attrs
    return SURPLUS not in trial.user_attrs


@contextmanager
def _said_of(storage: str) -> Iterator[None]:
    """A storage that fails on the way, in one sentence; Optuna may raise other errors over it while it cleans up."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        failed = next((one for one in _causes(error) if isinstance(one, SQLAlchemyError)), None)
        if failed is None:
            raise
        reason = str(failed).strip().splitlines()[0]
        raise InputError(
            f"--storage {shown(storage)}: failed on the way ({reason}); mend that and run the same command to go on"
        ) from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(level)
