"""Can a camera tell look-alikes from annotated objects at the size of the experiment's images?

    python benchmarks/look_alikes.py [--scenes 32]

Of every thing within 50 m that is seen, the mean colour of its visible pixels in images of 96 x 256. A logistic
regression is fitted to that on half of the scenes and tried on the other half. Printed are its accuracy, and the mean
of its accuracies on look-alikes and on objects (balanced accuracy) by class, weather and distance.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from aqr.synth.camera import render
from aqr.synth.lookalikes import SHARE
from aqr.synth.rig import draw_rig
from aqr.synth.shadows import ShadowPainter
from aqr.synth.stage import Stage, build_stage
from aqr.synth.weather import KINDS

Floats = npt.NDArray[np.float64]

SIZE = (96, 256)
CROPPED = 48
"""Rows that the experiment cuts off the top of an image of 144."""
REACH = 50.0
FEWEST_PIXELS = 4
SECONDS = (0.5, 4.0)
DISTANCES = (0.0, 15.0, 30.0, 50.0)


@dataclass(frozen=True)
class Seen:
    """One thing in one image: class, weather, distance (m), whether it is a look-alike, mean colour, scene."""

    name: str
    weather: str
    distance: float
    look_alike: bool
    colour: Floats
    scene: int


def seen_in(stage: Stage, seconds: float, weather: str, scene: int) -> list[Seen]:
    """Everything that the six cameras of a fixed rig see at one time."""
    moment, ego = stage.at(seconds), stage.ego(seconds)
    shadows = ShadowPainter(stage).paint(moment, ego)
    actors, fixed = stage.traffic.actors, len(stage.street.scenery)
    owners, names = moment.owners.copy(), [actor.name for actor in actors]
    for thing in stage.lookalikes:
        owners[fixed : fixed + len(thing.model.solids)] = len(names)
        fixed += len(thing.model.solids)
        names.append(thing.name)
    poses = np.concatenate([moment.poses, np.array([thing.pose for thing in stage.lookalikes]).reshape(-1, 4)])
    moment = replace(moment, owners=owners, poses=poses)
    distances = np.linalg.norm(poses[:, :2] - ego.translation[:2], axis=1)
    found = []
    for camera in draw_rig(np.random.default_rng(0)):
        intrinsic = camera.intrinsic((SIZE[0] + CROPPED, SIZE[1])).copy()
        intrinsic[1, 2] -= CROPPED
        view = render(stage, moment, shadows, ego @ camera.to_ego, ego, intrinsic, SIZE, np.random.default_rng(1))
        pixels, whose = view.image.reshape(-1, 3) / 255, view.actors.ravel()
        for number in np.flatnonzero(np.bincount(whose[whose >= 0], minlength=len(names)) >= FEWEST_PIXELS).tolist():
            if names[number] in SHARE and distances[number] < REACH:
                colour = pixels[whose == number].mean(axis=0)
                found.append(
                    Seen(names[number], weather, float(distances[number]), number >= len(actors), colour, scene)
                )
    return found


def regression(colours: Floats, labels: Floats) -> Floats:
    """Weights of a logistic regression on red, green, blue, their shares and 1."""
    inputs = features(colours)

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = inputs @ weights
        value = np.mean(np.logaddexp(0, logits) - labels * logits) + 1e-4 * weights @ weights
        return float(value), inputs.T @ (expit(logits) - labels) / len(labels) + 2e-4 * weights

    found: Floats = minimize(loss, np.zeros(inputs.shape[1]), jac=True, method="L-BFGS-B").x
    return found


def features(colours: Floats) -> Floats:
    shares = colours / (colours.sum(axis=1, keepdims=True) + 0.05)
    return np.concatenate([10 * colours, 10 * shares, np.ones((len(colours), 1))], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=32, help="scenes of each weather")
    arguments = parser.parse_args()
    seen: list[Seen] = []
    for weather in KINDS:
        for scene in range(arguments.scenes):
            stage = build_stage((77, scene), 10, (weather,))
            for seconds in SECONDS:
                seen += seen_in(stage, seconds, weather, scene)
    colours, truth = np.array([one.colour for one in seen]), np.array([one.look_alike for one in seen])
    fitted = np.array([one.scene % 2 == 0 for one in seen])
    weights = regression(colours[fitted], truth[fitted].astype(np.float64))
    right = (features(colours) @ weights > 0) == truth
    print(
        f"{(~fitted).sum()} tried, {truth[~fitted].mean():.0%} of them look-alikes: {right[~fitted].mean():.3f} right"
    )

    def balanced(chosen: npt.NDArray[np.bool_]) -> str:
        groups = [chosen & ~fitted & (truth == kind) for kind in (False, True)]
        if min(group.sum() for group in groups) < FEWEST_PIXELS:
            return "     -"
        return f"{np.mean([right[group].mean() for group in groups]):6.2f}"

    names, weathers = np.array([one.name for one in seen]), np.array([one.weather for one in seen])
    distances = np.array([one.distance for one in seen])
    print("balanced accuracy; columns: " + "; ".join(KINDS) + "; then within 15, 30 and 50 m")
    for name in SHARE:
        cells = [balanced((names == name) & (weathers == weather)) for weather in KINDS]
        for low, high in itertools.pairwise(DISTANCES):
            cells.append(balanced((names == name) & (distances >= low) & (distances < high)))
        print(f"{name:<16}", *cells)


if __name__ == "__main__":
    main()
