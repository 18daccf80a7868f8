"""Where workers meet: a study in SQLite on one machine, in PostgreSQL for many."""

from __future__ import annotations

import random
import re
import time
import warnings
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, OperationalError, ProgrammingError

from aqr.errors import InputError
from aqr.sweep.sampler import PerTrialSampler
from aqr.sweep.settings import SweepSettings

MAX_RETRY: Final = 3
"""Times that the trial of a worker which went silent is tried again."""
SQLITE_PATIENCE_S: Final = 120
"""How long a worker waits for another that writes to the same SQLite file."""
_ATTEMPTS: Final = 6


def open_storage(url: str, heartbeat: float) -> RDBStorage:
    """Connect to a storage, and make its tables where they are missing.

    Args:
        url: `sqlite:///FILE` or `postgresql://USER:PASSWORD@HOST/DATABASE`, or any URL that SQLAlchemy knows.
        heartbeat: seconds between signs of life.

    Raises:
        InputError: where there is no such storage.
    """
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    sqlite = url.startswith("sqlite")
    engine: dict[str, Any] = {"connect_args": {"timeout": SQLITE_PATIENCE_S}} if sqlite else {"pool_pre_ping": True}
    interval = max(round(heartbeat), 1)
    for attempt in range(_ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                return RDBStorage(
                    url,
                    engine_kwargs=engine,
                    heartbeat_interval=interval,
                    grace_period=2 * interval,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=MAX_RETRY),
                )
        except (ArgumentError, NoSuchModuleError):
            raise InputError(
                f"--storage {shown(url)}: is no address of a database; write sqlite:///FILE or postgresql://USER@HOST/DATABASE"
            ) from None
        except ImportError:
            raise InputError(
                f"--storage {shown(url)}: its driver is not installed; for PostgreSQL, pip install 'aqr[postgres]'"
            ) from None
        except (OperationalError, ProgrammingError, IntegrityError) as error:
            # Workers that start together make the same tables; all but one fail, and find them there a moment later.
            if attempt == _ATTEMPTS - 1:
                reason = str(error.orig).strip().splitlines()[0] if error.orig is not None else "no reason given"
                raise InputError(
                    f"--storage {shown(url)}: cannot be used ({reason}); start or name the database"
                ) from None
            time.sleep(0.1 * 2**attempt * (0.5 + random.random()))
    raise AssertionError("unreachable")


def shown(url: str) -> str:
    """A storage's address without its password.

    >>> shown("postgresql://me:secret@host/studies")
    'postgresql://me:***@host/studies'
    """
    return re.sub(r"(?<=://)([^:/@]*):[^@/]*@", r"\1:***@", url)


def sqlite_url(folder: Path) -> str:
    """The storage of a sweep on one machine."""
    return f"sqlite:///{(folder / 'study.db').resolve()}"


def open_study(storage: RDBStorage, name: str, settings: SweepSettings, val_every: int, steps: int) -> optuna.Study:
    """Join a study, or begin it.

    Args:
        storage: where it is kept.
        name: of the study.
        settings: of the sweep.
        val_every: steps between intermediate evaluations, 0 for none.
        steps: of a training.

    Raises:
        InputError: if the study there has other objectives, or pruning lacks evaluations.
    """
    kind = settings.pruner
    if kind in ("median", "hyperband") and not val_every:
        raise InputError(
            f"pruner {kind}: there are no intermediate evaluations; set train.val_every to a share of train.steps"
        )
    if kind is None:
        prunes = val_every > 0 and len(settings.objective) == 1 and settings.objective[0] != "resistance"
        kind = "median" if prunes else "none"
    pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
    if kind == "median":
        pruner = optuna.pruners.MedianPruner(n_startup_trials=min(5, settings.startup))
    elif kind == "hyperband":
        pruner = optuna.pruners.HyperbandPruner(min_resource=val_every, max_resource=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=name,
            storage=storage,
            sampler=PerTrialSampler(lambda seed: _sampler(settings, seed), settings.seed),
            pruner=pruner,
            directions=["maximize"] * len(settings.objective),
            load_if_exists=True,
        )
    if len(study.directions) != len(settings.objective):
        raise InputError(
            f"study {name!r} has {len(study.directions)} objectives, not {len(settings.objective)}; "
            "name another --study"
        )
    return study


def _sampler(settings: SweepSettings, seed: int) -> optuna.samplers.BaseSampler:
    if settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            n_startup_trials=settings.startup, multivariate=True, constant_liar=True, seed=seed
        )
