"""Checkpoints: written in one piece, read without running anything that is in them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from aqr import config as configuration
from aqr.config import Config, ImageEncoder
from aqr.detector.image_encoder import stated
from aqr.errors import InputError
from aqr.files import replacing
from aqr.training.run_folder import RunFolder

FORMAT: Final = "aqr-checkpoint-1"
KEPT: Final = 2
"""Numbered checkpoints that stay in a run folder."""

MEND: Final = "give a checkpoint that aqr wrote, a .safetensors file or a file with a plain state_dict of tensors"


@dataclass
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    Random state is missing on purpose: each step's is derived from (seed, step, rank), and the order of samples from
    (seed, step, number of ranks).

    Attributes:
        step: steps done, skipped ones included.
        skipped: steps skipped so far.
        skipped_in_row: the last of them, up to and including this step.
        detector: state_dict of the detector.
        optimizer: state_dict of the optimizer.
        scaler: state_dict of the loss scaler, empty unless fp16.
        window: sums of the metrics since the last log step.
        config: the resolved config, YAML.
        adaptation: settings that training moves, and the controller's memory; empty where nothing moves.
        world_size: ranks of the run; None in checkpoints that do not say.
    """

    step: int
    skipped: int
    skipped_in_row: int
    detector: dict[str, Tensor]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    window: dict[str, Any]
    config: str
    adaptation: dict[str, Any] = field(default_factory=dict)
    world_size: int | None = None

    def save(self, path: Path) -> None:
        """Write atomically; the file holds tensors and plain values only."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        with replacing(path) as partial, partial.open("wb") as file:
            try:
                torch.save({"format": FORMAT, **fields}, file)
            except RuntimeError as error:
                if isinstance(error.__context__, OSError):  # a full disk, which torch hides behind its own complaint
                    raise error.__context__ from None
                raise

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a checkpoint into CPU memory.

        Raises:
            InputError: if the file is missing, damaged, holds more than tensors and plain values, or is no checkpoint
                of a run.
        """
        values = {"adaptation": {}, "world_size": None} | _read_pickle(path)
        if values.pop("format", None) != FORMAT or values.keys() != {f.name for f in dataclasses.fields(cls)}:
            raise InputError(f"{path}: is no checkpoint of an aqr run; give one from a run folder's checkpoints/")
        return cls(**values)

    def parse_config(self, path: Path) -> Config:
        """The config that the run was started with; `path` names the file in errors."""
        return configuration.parse(yaml.safe_load(self.config), str(path))


def save_numbered(folder: RunFolder, checkpoint: Checkpoint) -> Path:
    """Write step-N.ckpt, make last.ckpt the same and drop all but the latest numbered ones."""
    path = folder.checkpoints / f"step-{checkpoint.step:08d}.ckpt"
    checkpoint.save(path)
    with replacing(folder.last_checkpoint) as partial:
        _link_or_copy(path, partial)
    for old in sorted(folder.checkpoints.glob("step-*.ckpt"))[:-KEPT]:
        old.unlink()
    return path


def save_final(
    folder: RunFolder, detector: nn.Module, config: Config, step: int, adaptation: Mapping[str, Any] | None = None
) -> Path:
    """Write the detector's weights as safetensors; config, step and moved settings stand in the metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "config": config.to_yaml(),
        "step": str(step),
        "adaptation": json.dumps(adaptation or {}),
    }
    with replacing(folder.final_weights) as partial:
        partial.write_bytes(safetensors.torch.save(tensors, metadata))
    return folder.final_weights


def read_config(path: Path) -> Config:
    """The config stored in a checkpoint or a final.safetensors.

    Raises:
        InputError: if the file cannot be read or holds no config.
    """
    if path.suffix != ".safetensors":
        return Checkpoint.load(path).parse_config(path)
    text = _read_safetensors_metadata(path).get("config")
    if text is None:
        raise InputError(f"{path}: holds weights but no config; give a run folder or a checkpoint that aqr wrote")
    return configuration.parse(yaml.safe_load(text), str(path))


@dataclass(frozen=True)
class Trained:
    """A detector as a checkpoint or a final.safetensors holds it.

    Attributes:
        weights: tensors by name.
        adaptation: settings that training had moved; empty in files that do not say.
        step: steps done; None in files that do not say.
    """

    weights: dict[str, Tensor]
    adaptation: dict[str, Any]
    step: int | None

    @classmethod
    def read(cls, path: Path) -> Trained:
        """Read a file, once, into CPU memory.

        Raises:
            InputError: if the file cannot be read or is no checkpoint of a run.
        """
        if path.suffix != ".safetensors":
            checkpoint = Checkpoint.load(path)
            return cls(checkpoint.detector, checkpoint.adaptation, checkpoint.step)
        said = _read_safetensors_metadata(path)
        step = said.get("step", "")
        return cls(
            weights=safetensors.torch.load_file(path),
            adaptation=json.loads(said.get("adaptation", "{}")),
            step=int(step) if step.isdecimal() else None,
        )


def without_pretrained(config: Config) -> Config:
    """The config of a detector whose weights are all about to be loaded: none are fetched to start from."""
    return _with_image(config, config.detector.image.model_copy(update={"pretrained": None}))


def stating_backbone(config: Config, started_with: Config | None = None) -> Config:
    """The config with the architecture of a pretrained image backbone written out (see `without_pretrained`).

    Args:
        config: of a run.
        started_with: config in the folder of a run that goes on; what it states of the same weights is taken over, so
            that these need not be there any more.

    Raises:
        InputError: where there are no such weights.
    """
    image = config.detector.image
    if started_with is not None and image.pretrained is not None:
        known = started_with.detector.image
        if known.pretrained == image.pretrained:
            return _with_image(config, known.model_copy(update={"freeze_norm": image.freeze_norm}))
    return _with_image(config, stated(image))


def _with_image(config: Config, image: ImageEncoder) -> Config:
    detector = config.detector.model_copy(update={"image": image})
    return config.model_copy(update={"detector": detector})


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors of a file and of the detector.

    Attributes:
        loaded: names of the detector's tensors that were taken from the file.
        missing: names that the file lacks; they keep their initial value.
        unexpected: names that only the file has.
        mismatched: names with another shape in the file, with both shapes.
    """

    loaded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = field(default=())

    def lines(self) -> list[str]:
        """A short list for people: one line per kind, names grouped by their first two parts."""
        kinds = (
            ("loaded", self.loaded),
            ("missing", self.missing),
            ("left over", self.unexpected),
            ("wrong shape", self.mismatched),
        )
        return [f"{kind}: {_grouped(names)}" for kind, names in kinds]


def load_weights(detector: nn.Module, path: Path) -> LoadReport:
    """Start a detector from a file: take every tensor whose name and shape fit, leave the others as they are.

    Args:
        detector: changed in place.
        path: a checkpoint or final.safetensors of a run, any .safetensors file, or a state_dict of tensors saved by
            `torch.save`, also nested under `state_dict`.

    Raises:
        InputError: if the file cannot be read safely or not one of its tensors fits.
    """
    return take_weights(detector, read_weights(path), path)


def take_weights(detector: nn.Module, found: Mapping[str, Tensor], path: Path) -> LoadReport:
    """`load_weights` with the tensors of a file that was read; `path` names it in errors.

    Raises:
        InputError: if not one of the tensors fits.
    """
    own = detector.state_dict()
    shared = [name for name in own if name in found]
    fitting = {name: found[name] for name in shared if found[name].shape == own[name].shape}
    report = LoadReport(
        loaded=tuple(fitting),
        missing=tuple(name for name in own if name not in found),
        unexpected=tuple(name for name in found if name not in own),
        mismatched=tuple(
            f"{name} {list(found[name].shape)} in the file, {list(own[name].shape)} here"
            for name in shared
            if name not in fitting
        ),
    )
    if not fitting:
        raise InputError(f"{path}: none of its {len(found)} tensors fits this detector; {MEND}")
    detector.load_state_dict(fitting, strict=False)
    return report


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, in CPU memory.

    Raises:
        InputError: if the file is missing, damaged, holds no named tensors or holds what cannot be read safely.
    """
    if path.suffix == ".safetensors":
        _read_safetensors_metadata(path)
        return safetensors.torch.load_file(path)
    values: Any = _read_pickle(path)
    for key in ("detector", "state_dict"):
        if isinstance(values.get(key), Mapping):
            values = values[key]
            break
    tensors = {str(name): value for name, value in values.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{path}: holds no tensors by name; {MEND}")
    return tensors


def _read_pickle(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist or is no file; {MEND}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # arbitrary bytes fail in the restricted unpickler in arbitrary ways
        raise InputError(
            f"{path}: cannot be read safely (cut short, damaged, or holding more than tensors and plain values); {MEND}"
        ) from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__} instead of tensors by name; {MEND}")
    return values


def _read_safetensors_metadata(path: Path) -> dict[str, str]:
    if not path.is_file():
        raise InputError(f"{path}: does not exist or is no file; {MEND}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError):
        raise InputError(f"{path}: is no complete safetensors file; {MEND}") from None


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _grouped(names: Iterable[str]) -> str:
    groups = Counter(".".join(name.split(" ")[0].split(".")[:2]) for name in names)
    total = sum(groups.values())
    if not total:
        return "none"
    shown = [f"{group} ({count})" for group, count in groups.most_common(8)]
    rest = total - sum(count for _, count in groups.most_common(8))
    return f"{total} tensors: " + ", ".join(shown) + (f" and {rest} more" if rest else "")
