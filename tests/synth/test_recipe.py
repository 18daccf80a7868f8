"""The recipe's number against what it makes: other scenes need another number, or old and new ones get mixed."""

import hashlib
import json
from typing import Any

import numpy as np

from aqr.synth.presets import PRESETS
from aqr.synth.recorder import draw
from aqr.synth.sensors import SceneJob
from aqr.synth.stage import KEYFRAME_S
from aqr.synth.world import RECIPE

DIGESTS = {2: "28a341c1e26ad19d"}
"""Of two scenes, by recipe; those of earlier recipes stay, for the number of one is never used again."""


def rounded(values: Any) -> list[float]:
    """To a hundredth (m, rad): far coarser than what versions of NumPy round differently.

    Moved by a little first, for a size of 1.075 lies where either neighbour may come out.
    """
    return [float(value) + 0.0 for value in np.round(np.asarray(values, dtype=np.float64) + 0.00123, 2)]


def test_scenes_are_those_of_their_recipe() -> None:
    preset = PRESETS["tiny"]
    end = (preset.keyframes - 1) * KEYFRAME_S
    scenes = []
    for name in ("scene-0916", "scene-1094"):  # night and day, on the right and on the left
        stage, _ = draw(SceneJob(name, 0, preset))
        actors = [
            [actor.name, rounded(actor.model.size), rounded(actor.track.at(0.0)), rounded(actor.track.at(end))]
            for actor in stage.traffic.actors
        ]
        lookalikes = [[thing.name, rounded(thing.model.size), rounded(thing.pose)] for thing in stage.lookalikes]
        assert len(actors) > 30
        assert len(lookalikes) > 20
        scenes.append([name, stage.weather.words, stage.left_hand, actors, lookalikes])
    digest = hashlib.sha256(json.dumps(scenes).encode()).hexdigest()[:16]
    assert digest == DIGESTS.get(RECIPE), (
        f"the scenes of recipe {RECIPE} have changed. A world begun by an earlier version would be continued with "
        "other scenes, and its cached tables be taken for those of the new one. If the change is meant, raise RECIPE "
        f"in aqr/synth/world.py and add the digest {digest} under the new number"
    )
