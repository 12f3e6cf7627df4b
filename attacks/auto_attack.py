"""AutoAttack: four attacks, each on the images that still stand."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from attacks.apgd import APGDCE, APGDT, LEAST_CLASSES_OF_DLR
from attacks.balls import BallAttack
from attacks.base import Attack, AttackResult, Inputs, refuse_given
from attacks.fab import FABT
from attacks.square import Square


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack(BallAttack):
    """The worst that four attacks without free parameters find in a ball.

    Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an
    ensemble of diverse parameter-free attacks", Sec. 5, in the standard version
    of their published code: APGD-CE, APGD-T and FAB-T (100 steps, one run each,
    of the last two one for each of 9 target classes) and Square (5,000
    queries), in this order, each only on the images that those before it left
    standing. An image stands as long as no attack has given an image in its
    ball that the classifier takes for another class; if all four fail,
    APGD-CE's comes back. Each attack's docstring says where it deviates.

    Given `starts` take the place of APGD-CE's random ones. The gradient
    evaluations of an image are those of all attacks on it.

    Deviation: the loss of APGD-T needs 4 classes. With fewer it is left out,
    with a warning; the published code fails.
    """

    name: ClassVar[str] = "auto_attack"

    def attack_list(self) -> tuple[APGDCE, APGDT, FABT, Square]:
        """The four attacks in their order, to run each on its own.

        They have this one's seed, so each draws as it does here. FAB-T, which
        looks for the shortest perturbation, stops where that is in the ball,
        and may return one that is not.
        """
        settings: dict[str, Any] = {
            "seed": self.seed,
            "batch_size": self.batch_size,
            "xla": self.xla,
        }
        ball: dict[str, Any] = {"epsilon": self.epsilon, "norm": self.norm}
        return (
            APGDCE(**ball, **settings),
            APGDT(**ball, **settings),
            FABT(norm=self.norm, stop_at=self.epsilon, **settings),
            Square(**ball, **settings),
        )

    def images_at_a_time(self, image_shape: Sequence[int]) -> int:
        return self.attack_list()[0].images_at_a_time(image_shape)

    def _check(
        self, classifier, images, labels, targets, starts, indices
    ) -> Inputs:
        refuse_given("auto_attack is untargeted", targets=targets)
        inputs = super()._check(
            classifier, images, labels, targets, starts, indices
        )
        if starts is not None:
            return inputs
        first = tf.zeros_like(inputs.indices)
        apgd_ce, *_ = self.attack_list()
        return inputs._replace(starts=apgd_ce.random_on_surface(inputs, first))

    def _craft(
        self, classifier: Any, inputs: Inputs, progress: Callable[[int], None]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        found = _Found(inputs)
        attacks = _that_run(self.attack_list(), classifier.num_classes)
        for attack in attacks:
            standing = np.flatnonzero(found.stands)
            if not len(standing):
                break
            is_last = attack is attacks[-1]
            rest = Inputs(*[tf.gather(column, standing) for column in inputs])
            result = attack(
                classifier,
                rest.images,
                rest.labels,
                starts=rest.starts if isinstance(attack, APGDCE) else None,
                indices=rest.indices,
                progress=progress if is_last else _without_count(progress),
            )
            judged, _ = self._judge(classifier, rest, result.adversarial)
            found.put(standing, judged, result.gradient_evaluations)
            if not is_last:
                progress(int(np.sum(judged.success)))
        return tf.constant(found.adversarial), tf.constant(found.evaluations)


class _Found:
    """What the images have become so far."""

    def __init__(self, inputs: Inputs) -> None:
        self.adversarial = np.array(inputs.images)
        self.evaluations = np.zeros(len(self.adversarial), np.int64)
        self.stands = np.ones(len(self.adversarial), bool)
        self._is_first = True

    def put(
        self, places: np.ndarray, judged: AttackResult, evaluations: tf.Tensor
    ) -> None:
        """Takes what fools; of the first attack what does not, too."""
        has_fallen = judged.success.numpy()
        is_taken = has_fallen | self._is_first
        self.adversarial[places[is_taken]] = judged.adversarial[is_taken]
        self.evaluations[places] += evaluations
        self.stands[places] = ~has_fallen
        self._is_first = False


def _that_run(attacks: Sequence[Attack], classes: int) -> Sequence[Attack]:
    """The attacks that a classifier of so many classes allows."""
    if classes >= LEAST_CLASSES_OF_DLR:
        return attacks
    warnings.warn(
        f"auto_attack leaves apgd_t out, which needs {LEAST_CLASSES_OF_DLR} "
        f"classes; the classifier has {classes}",
        stacklevel=2,
    )
    return [attack for attack in attacks if not isinstance(attack, APGDT)]


def _without_count(progress: Callable[[int], None]) -> Callable[[int], None]:
    """Before the last attack none is known to be done, but the work goes on."""
    return lambda count: progress(0)
