"""Settings printed in a log or named by a file."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, Final

from aqr.analysis.language import Message, text
from aqr.analysis.run import Setting

KEYS: Final = {
    "enable_aqr": "enable_aqr",
    "use_aqr": "enable_aqr",
    "max_weight_clamp": "max_weight_clamp",
    "residual_weight": "residual_weight",
    "render_method": "render_method",
    "gaussian_sigma": "gaussian_sigma",
    "min_weight_threshold": "min_weight_threshold",
    "modulation_type": "modulation_type",
    "num_query": "num_query",
    "load_from": "init_from",
    "samples_per_gpu": "batch_size",
    "total_epochs": "epochs",
    "max_epochs": "epochs",
}
"""Names in mmcv and mmengine configs -> ours."""

_PRINTED: Final = re.compile(
    r"(?<![\w.])['\"]?(" + "|".join(KEYS) + r")['\"]?\s*[=:]\s*"
    r"(True|False|None|'[^'\n]*'|\"[^\"\n]*\"|[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)(?=[\s,)}\]#]|$)"
)
_SEED: Final = re.compile(r"Set random seed to (\d+)")

_OURS: Final = {
    "enable_aqr": "aqr.enabled",
    "target": "aqr.target",
    "max_weight_clamp": "aqr.renderer.max_weight_clamp",
    "residual_weight": "aqr.modulator.residual_weight",
    "render_method": "aqr.renderer.render_method",
    "gaussian_sigma": "aqr.renderer.gaussian_sigma",
    "min_weight_threshold": "aqr.renderer.min_weight_threshold",
    "modulation_type": "aqr.modulator.modulation_type",
    "form": "aqr.modulator.form",
    "gate": "aqr.modulator.gate",
    "parameterisation": "aqr.parameterisation",
    "num_query": "detector.num_query",
    "init_from": "train.init_from",
    "only": "train.only",
    "batch_size": "data.batch_size",
    "devices": "train.devices",
    "steps": "train.steps",
    "lr": "train.lr",
    "lr_peak": "train.lr_peak",
    "precision": "train.precision",
    "seed": "seed",
    "backbone": "detector.image.backbone",
    "layers": "detector.num_layers",
    "augment": "data.augment",
    "cbgs": "data.cbgs",
    "data_root": "data.root",
    "data_version": "data.version",
    "train_split": "data.train_split",
}
"""Our names -> keys of config.yaml."""


def printed_settings(config: str) -> tuple[dict[str, Setting], list[Message]]:
    """Settings in Python (mmcv, mmengine) or JSON notation; one printed with two values is left out and reported."""
    found: dict[str, set[Any]] = {}
    for key, value in _PRINTED.findall(config):
        found.setdefault(KEYS[key], set()).add(ast.literal_eval(value))
    found.setdefault("seed", set()).update(int(seed) for seed in _SEED.findall(config))
    settings, notes = {}, []
    for name, values in found.items():
        values.discard(None)
        if len(values) == 1:
            settings[name] = Setting(values.pop(), "config")
        elif len(values) > 1:
            shown = ", ".join(sorted(map(str, values)))
            notes.append(
                text("The log states {name} with several values ({values}); none is used.", name=name, values=shown)
            )
    return settings, notes


_FEATURES_ALONE: Final = (
    "residual_weight",
    "render_method",
    "gaussian_sigma",
    "min_weight_threshold",
    "modulation_type",
    "form",
    "gate",
    "parameterisation",
)
"""Settings that have no effect where weights act in attention."""


def config_settings(config: Mapping[str, Any]) -> dict[str, Setting]:
    """Settings of our config.yaml, those without effect left out."""
    out = {}
    for name, key in _OURS.items():
        value: Any = config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            value = ", ".join(map(str, value)) or None
        if isinstance(value, str | int | float | bool):
            out[name] = Setting(value, "config")
    if "target" in out and out["target"].value == "attention":
        out = {name: one for name, one in out.items() if name not in _FEATURES_ALONE}
    return out


_IN_NAME: Final = {
    "max_weight_clamp": re.compile(r"clamp[_=-]?(\d+(?:\.\d+)?)", re.IGNORECASE),
    "residual_weight": re.compile(r"res(?:idual)?[_=-]?(\d+(?:\.\d+)?)", re.IGNORECASE),
}
_NO_AQR: Final = re.compile(r"(?<![a-z])(no|without|w_?o)[_-]?aqr(?![a-z])", re.IGNORECASE)


def settings_in_name(name: str) -> dict[str, Setting]:
    """Settings that people write into a file's name: aqr_clamp2.5_residual0.6, no_aqr."""
    out: dict[str, Setting] = {}
    if _NO_AQR.search(name):
        return {"enable_aqr": Setting(False, "file name")}
    for setting, pattern in _IN_NAME.items():
        match = pattern.search(name)
        if match:
            out[setting] = Setting(float(match[1]), "file name")
    return out
