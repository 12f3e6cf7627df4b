"""The whole truth about a defence: every attack, threat model and start.

What is attacked is crafted to HDF5 first and measured then, so that a killed
run goes on inside an attack. The oblivious sets stay, since white-box
searches start from them; the others go once they are measured.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import attacks
import data
import models
from ape_gan_tf import evaluation
from ape_gan_tf.adaptive import NOT_FINITE, Attacker, attacker_of
from ape_gan_tf.choices import GRADIENTS
from ape_gan_tf.crafting import craft, provenance
from ape_gan_tf.evaluation import (
    BenignInput,
    Clean,
    GaussianNoise,
    SignNoise,
    Subject,
    evaluate,
    evaluate_set,
    set_row,
)
from ape_gan_tf.gallery import label_of
from ape_gan_tf.metrics import MetricsFile, Row
from ape_gan_tf.timing import milliseconds_an_image
from ape_gan_tf.worst_case import measure_worst_cases
from data.checks import (
    check_in_range,
    check_one_of,
    check_positive_integer,
)
from data.files import remove

THREAT_MODELS = (*evaluation.THREAT_MODELS, "transfer")
# They see no gradient, so none can mislead them.
_GRADIENT_FREE = ("square",)
# Where answers change: they do not stop at the first that is wrong.
_BEAR_CHANCE = ("fgsm", "iterative_gradient_sign", "pgd")
STOPS_AT_CHANCE = "not attacked: it stops at one wrong answer, and these change"
STOPS_AT_GUESS = "not attacked: it stops at a wrong guess, followed or not"
# Ball attacks that search from a given image.
STARTABLE = ("pgd", "apgd_ce")
# Draws the curve on beyond the asked epsilons; it has no step size to choose.
CURVE_ATTACK = "apgd_ce"
# A killed run begins its shard again: AutoAttack may need a second an image.
SHARD_OF_SEARCHES = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        attacks: Each is measured under each threat model.
        threat_models: Of `THREAT_MODELS`; `white_box` also measures the
            oblivious ones, whose images it starts from.
        noise_variance: Of the Gaussian noise.
        transfer_classifier: Whom `transfer` crafts on.
        gradient: How white-box attacks differentiate, see `attacker_of`.
        eot_samples: See `attacker_of`.
        curve: Whether `CURVE_ATTACK` is made at each epsilon of Linf.
        largest_epsilon: Up to which the curve goes on, until all are fooled.
    """

    attacks: tuple[attacks.Attack, ...] = ()
    threat_models: tuple[str, ...] = ("oblivious", "white_box")
    noise_variance: float = 0.05
    transfer_classifier: models.Classifier | None = None
    gradient: str = "auto"
    eot_samples: int = 10
    curve: bool = True
    largest_epsilon: float = 1.0

    def __post_init__(self) -> None:
        check_one_of(self.gradient, GRADIENTS, "gradient")
        check_positive_integer(self.eot_samples, "eot_samples")
        check_in_range(self.largest_epsilon, 0.0, 1.0, "largest_epsilon")
        for threat in self.threat_models:
            check_one_of(threat, THREAT_MODELS, "threat_models")
        wants_transfer = "transfer" in self.threat_models
        if wants_transfer != (self.transfer_classifier is not None):
            raise ValueError(
                "transfer_classifier must be given with "
                f"threat_models=transfer, and only then, got "
                f"{self.transfer_classifier!r} with "
                f"{','.join(self.threat_models)}"
            )

    @property
    def epsilons(self) -> list[float]:
        """Radii of the asked attacks' balls, of whatever norm, in order."""
        return sorted({epsilon for _, epsilon in self._balls})

    @property
    def linf_epsilons(self) -> list[float]:
        """Those of Linf."""
        return sorted({x for norm, x in self._balls if norm == "linf"})

    @property
    def _balls(self) -> set[tuple[str, float]]:
        return {
            (attack.params.get("norm", "linf"), attack.params["epsilon"])
            for attack in self.attacks
            if "epsilon" in attack.params and not attack.is_minimal_norm
        }


class Robustness:
    """Measures one subject by a plan, in a work directory.

    Args:
        workdir: Holds `metrics.json`, `outcomes/` and `adversarial/`.
        subject: Classifier, purifier and images.
        plan: What to measure.

    Raises:
        ValueError: `white_box` comes without a purifier, or `guess` without
            one that makes a guess.
    """

    def __init__(self, workdir: Path, subject: Subject, plan: Plan) -> None:
        if "white_box" in plan.threat_models and subject.purifier is None:
            raise ValueError(
                "threat_models=white_box needs a purifier, got none"
            )
        if plan.gradient == "guess":
            models.guess_in_place_of(subject.defended or subject.classifier)
        self._workdir = workdir
        self._subject = subject
        self._plan = plan
        self._metrics = MetricsFile(
            workdir / "metrics.json", workdir / "outcomes"
        )

    @functools.cached_property
    def attacker(self) -> Attacker:
        """Who knows all, and what was seen of the gradient."""
        plan = self._plan
        return attacker_of(self._subject, plan.gradient, plan.eot_samples)

    def measure(self) -> list[Row]:
        """All rows of the plan; what is measured already is kept."""
        rows = [
            *self._benign(),
            *self._oblivious(),
            *self._transfer(),
            *self._white_box(),
        ]
        rows += self._curve()
        worst = measure_worst_cases(
            rows,
            self._metrics,
            has_fixed_answers=self.attacker.has_fixed_answers,
        )
        return [*rows, *worst]

    def pictured(self, count: int) -> Iterator[tuple[str, np.ndarray]]:
        """The first images: clean, and as each oblivious attack left them."""
        first = next(iter(self._subject.batches().unbatch().batch(count)))
        yield "clean", first["images"].numpy()
        if not self._is_oblivious_measured:
            return
        for attack in self._attacks:
            with contextlib.suppress(attacks.NonFiniteError):
                made = self._oblivious_set(attack)
                batch = next(iter(made.batches(count)))
                label = label_of(attack.name, attack.params)
                yield label, batch["adversarial"].numpy()

    @property
    def _is_oblivious_measured(self) -> bool:
        return bool(set(self._plan.threat_models) & {"oblivious", "white_box"})

    def _benign(self) -> Iterator[Row]:
        seed = self._subject.seed
        kinds: list[BenignInput] = [
            Clean(),
            GaussianNoise(variance=self._plan.noise_variance, seed=seed),
            *(
                SignNoise(epsilon=x, seed=seed)
                for x in self._plan.linf_epsilons
            ),
        ]
        for kind in kinds:
            (row,) = evaluate(self._subject, [kind], [], [], self._metrics)
            yield self._timed(row) if isinstance(kind, Clean) else row

    def _timed(self, row: Row) -> Row:
        """The row with the purifier's time, which is measured once."""
        purifier = self._subject.purifier
        if purifier is None or row.milliseconds is not None:
            return row
        batch = next(iter(self._subject.batches()))
        timed = dataclasses.replace(
            row, milliseconds=milliseconds_an_image(purifier, batch["images"])
        )
        self._metrics.add(timed)
        return timed

    def _oblivious(self) -> Iterator[Row]:
        if self._is_oblivious_measured:
            for attack in self._attacks:
                yield self._set_row(attack, self._subject.classifier, keep=True)

    def _transfer(self) -> Iterator[Row]:
        other = self._plan.transfer_classifier
        if other is not None:
            for attack in self._attacks:
                yield self._set_row(attack, other)

    def _white_box(self) -> Iterator[Row]:
        if "white_box" not in self._plan.threat_models:
            return
        for attack in self._attacks:
            yield self._white_box_row(attack)
        if self.attacker.remark is None:
            for attack in self._searches():
                yield from self._from_oblivious(attack)

    def _searches(self) -> list[attacks.Attack]:
        """Who begin at others' images: those asked for, or the curve's."""
        asked = [each for each in self._attacks if each.name in STARTABLE]
        if asked or not self.attacker.has_fixed_answers:
            return asked
        return [self._curve_attack(x) for x in self._plan.linf_epsilons]

    def _white_box_row(self, attack: attacks.Attack) -> Row:
        row = self._set_row(
            attack, self.attacker.victim, remark=self._remark_on(attack)
        )
        if row.target_error is not None:
            return row
        # The bare classifier's, under the same attack on itself.
        bare = self._set_row(attack, self._subject.classifier, keep=True)
        return self._with_target(row, bare)

    def _remark_on(self, attack: attacks.Attack) -> str | None:
        """Why a white-box attack would say nothing, if so."""
        attacker = self.attacker
        if not attacker.has_fixed_answers and attack.name not in _BEAR_CHANCE:
            return STOPS_AT_CHANCE
        if attacker.gradient == "guess" and attack.is_minimal_norm:
            return STOPS_AT_GUESS
        return None if attack.name in _GRADIENT_FREE else attacker.remark

    def _with_target(self, row: Row, bare: Row) -> Row:
        figures = (
            "target_error",
            "target_top5_error",
            "target_median_distance",
            "target_mean_distance",
            "distance",
        )
        known = {name: getattr(bare, name) for name in figures}
        whole = dataclasses.replace(row, **known)
        self._metrics.add(whole)
        return whole

    def _from_oblivious(self, attack: attacks.Attack) -> Iterator[Row]:
        """The search again, from what fools the classifier alone."""
        # Restarts after the first would be at random once more.
        params = {**attack.params, "restarts": 1}
        once = attacks.get(
            attack.name,
            **params,
            seed=attack.seed,
            batch_size=attack.batch_size,
        )
        for other in self._attacks:
            if _ends_in_ball(other, attack):
                yield self._set_row(once, self.attacker.victim, start=other)

    def _curve(self) -> Iterator[Row]:
        """Larger and larger balls, until nothing is right any more."""
        plan = self._plan
        if not plan.curve or not self._is_oblivious_measured:
            return
        asked = plan.linf_epsilons
        for epsilon in [*asked, *_beyond(asked, plan.largest_epsilon)]:
            attack = self._curve_attack(epsilon)
            if attack in self._attacks:
                continue
            rows = list(self._on_the_curve(attack))
            yield from rows
            known = rows[-1]
            is_white_box = known.threat_model == "white_box"
            error = known.purified_error if is_white_box else known.target_error
            if epsilon > asked[-1] and error == 100.0:
                return

    def _on_the_curve(self, attack: attacks.Attack) -> Iterator[Row]:
        bare = self._set_row(attack, self._subject.classifier)
        yield bare
        is_defended = "white_box" in self._plan.threat_models
        if is_defended and self._remark_on(attack) is None:
            row = self._set_row(attack, self.attacker.victim)
            yield self._with_target(row, bare)

    def _curve_attack(self, epsilon: float) -> attacks.Attack:
        return attacks.get(
            CURVE_ATTACK,
            epsilon=epsilon,
            seed=self._subject.seed,
            batch_size=self._subject.batch_size,
        )

    @property
    def _attacks(self) -> list[attacks.Attack]:
        return [
            dataclasses.replace(
                attack,
                seed=self._subject.seed,
                batch_size=self._subject.batch_size,
            )
            for attack in self._plan.attacks
        ]

    def _set_row(
        self,
        attack: attacks.Attack,
        victim: models.Classifier,
        *,
        keep: bool = False,
        remark: str | None = None,
        start: attacks.Attack | None = None,
    ) -> Row:
        """Crafts and measures one set, unless that was done before.

        `start` is the attack whose oblivious images the search begins at.
        """
        extra = {} if start is None else {"start": _start_name(start)}
        attacker = self.attacker
        if victim is attacker.victim and victim.purifier and attacker.gradient:
            extra["gradient"] = attacker.gradient
        made_by = provenance(
            attack,
            victim,
            self._subject.dataset,
            self._subject.split,
            **extra,
        )
        row = set_row(self._subject, made_by, self._subject.count)
        if remark is not None:
            return self._remarked(row, remark)
        known = self._metrics.find(row)
        # Crafted anew where it only could not be crafted the last time.
        if known is not None and known.remark != NOT_FINITE:
            return known
        try:
            starts = None if start is None else self._oblivious_set(start)
            made = self._craft(attack, victim, made_by, starts, extra)
        except attacks.NonFiniteError:
            return self._remarked(row, NOT_FINITE)
        row = evaluate_set(self._subject, made, self._metrics)
        if not keep:
            remove(made.path)
        return row

    def _remarked(self, row: Row, remark: str) -> Row:
        known = self._metrics.find(row)
        if known is not None and known.remark == remark:
            return known
        row = dataclasses.replace(row, remark=remark)
        self._metrics.add(row, {})
        return row

    def _oblivious_set(self, attack: attacks.Attack) -> data.AdversarialSet:
        victim = self._subject.classifier
        made_by = provenance(
            attack, victim, self._subject.dataset, self._subject.split
        )
        return self._craft(attack, victim, made_by, None, {})

    def _craft(
        self,
        attack: attacks.Attack,
        victim: models.Classifier,
        made_by: data.Provenance,
        starts: data.AdversarialSet | None,
        extra: dict[str, str],
    ) -> data.AdversarialSet:
        name = f"{made_by.attack}_{_digest(made_by, self._subject.count)}"
        is_quick = isinstance(attack, attacks.BatchAttack)
        shape = self._subject.dataset.image_shape
        return craft(
            attack,
            victim,
            self._subject.dataset,
            self._subject.split,
            self._workdir / "adversarial" / made_by.threat_model / name,
            limit=self._subject.limit,
            shard_size=None
            if is_quick
            else data.default_shard_size(shape, at_most=SHARD_OF_SEARCHES),
            starts=starts,
            extra=extra,
        )


def _start_name(start: attacks.Attack) -> str:
    """`oblivious pgd, steps 100`: what tells it from other starts."""
    usual = attacks.get(start.name).params
    # The search has the same epsilon, or says so of another kind of attack.
    own = [
        f"{name} {value}"
        for name, value in start.params.items()
        if name != "epsilon" and value != usual[name]
    ]
    return ", ".join([f"oblivious {start.name}", *own])


def _ends_in_ball(other: attacks.Attack, attack: attacks.Attack) -> bool:
    """Whether an attack's images are where another would start.

    Those of minimal norm are brought into the ball; those of another ball of
    the same attack would only start nearer or clipped.
    """
    if other.is_minimal_norm or "epsilon" not in other.params:
        return True
    return other.params["epsilon"] == attack.params["epsilon"]


def _beyond(asked: Sequence[float], largest: float) -> Iterator[float]:
    """Twice as large as the last one again and again, up to the largest."""
    epsilon = asked[-1] if asked else largest
    while epsilon < largest:
        epsilon = min(2.0 * epsilon, largest)
        yield epsilon


def _digest(made_by: data.Provenance, count: int) -> str:
    """Names a set by all that determines it."""
    described: dict[str, Any] = dataclasses.asdict(made_by)
    del described["package_versions"]
    text = json.dumps([described, count], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
