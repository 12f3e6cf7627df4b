"""How an attacker who knows a purifier differentiates through it."""

from __future__ import annotations

import dataclasses

import attacks
import models
from ape_gan_tf.choices import GRADIENTS
from ape_gan_tf.evaluation import Subject
from data.checks import check_one_of, check_positive_integer

NOT_ADAPTIVE = "not attacked adaptively"
NOT_FINITE = "not attacked: its gradients are not finite"
IMAGES_PROBED = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attacker:
    """A white-box attacker of one subject.

    Attributes:
        victim: What is differentiated: the defended classifier, or a stand-in
            with the same fingerprint.
        gradient: `bpda`, `eot 10` (with the number of answers), both, or
            `guess`, where it is a stand-in.
        remark: Why a gradient attack on `victim` would say nothing, if so.
        has_fixed_answers: Whether the same query has the same answer. Where
            not, an attack that stops at the first success has found chance.
        probe: Of the defended classifier's own gradient.
    """

    victim: models.Classifier
    gradient: str | None
    remark: str | None
    has_fixed_answers: bool
    probe: models.GradientProbe


def attacker_of(
    subject: Subject, gradient: str = "auto", eot_samples: int = 10
) -> Attacker:
    """Looks at a subject's gradient, and gets around what it has not.

    Athalye et al. 2018: a purifier that returns no gradient is differentiated
    as if it were the identity (BPDA, Sec. 4.1), one whose answers change by
    the mean over several of them (EOT, Sec. 4.2).

    Args:
        subject: With or without a purifier.
        gradient: `auto` does what is needed; `plain`, `bpda` or `eot` does
            that alone, and if more were needed the result is remarked upon.
            `guess` takes the guess that the purifier makes of its own for the
            whole.
        eot_samples: Answers to take the mean of.

    Raises:
        ValueError: An argument does not fit.
    """
    check_one_of(gradient, GRADIENTS, "purifier_gradient")
    check_positive_integer(eot_samples, "eot_samples")
    whole = subject.defended or subject.classifier
    count = min(IMAGES_PROBED, attacks.default_batch_size(whole.image_shape))
    batch = next(iter(subject.batches().unbatch().batch(count)))
    probe = models.probe_gradients(whole, batch["images"], batch["labels"])
    needed = _needed(probe)
    used = needed if gradient == "auto" else {gradient} - {"plain"}
    if subject.purifier is None:
        used -= {"bpda"}  # There is nothing that could be the identity.
    victim = _victim(subject, used, eot_samples)
    seen = probe
    if used:
        seen = models.probe_gradients(victim, batch["images"], batch["labels"])
    names = {"bpda": "bpda", "eot": f"eot {eot_samples}", "guess": "guess"}
    return Attacker(
        victim=victim,
        gradient=", ".join(names[each] for each in sorted(used)) or None,
        remark=_remark(seen, "eot" in needed - used),
        has_fixed_answers=not probe.answers_change,
        probe=probe,
    )


def _needed(probe: models.GradientProbe) -> set[str]:
    ways = {"bpda": probe.zero_share > 0.5, "eot": probe.answers_change}
    return {way for way, is_needed in ways.items() if is_needed}


def _victim(
    subject: Subject, used: set[str], eot_samples: int
) -> models.Classifier:
    victim = subject.defended or subject.classifier
    if "bpda" in used and subject.purifier is not None:
        victim = subject.classifier.behind(
            models.with_identity_backward(subject.purifier)
        )
    if "guess" in used:
        victim = models.guess_in_place_of(victim)
    if "eot" in used:
        victim = models.averaged(victim, eot_samples)
    return victim


def _remark(seen: models.GradientProbe, lacks_eot: bool) -> str | None:
    """Of the gradient that an attack would go by."""
    if seen.non_finite_share > 0.0:
        return NOT_FINITE
    if lacks_eot or seen.zero_share > 0.5:
        return NOT_ADAPTIVE
    return None
