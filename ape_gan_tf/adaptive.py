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
        gradient: `bpda`, `eot` or `bpda, eot` where it is a stand-in.
        remark: Why a gradient attack on `victim` would say nothing, if so.
        probe: Of the defended classifier's own gradient.
    """

    victim: models.Classifier
    gradient: str | None
    remark: str | None
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
    return Attacker(
        victim=_victim(subject, used, eot_samples),
        gradient=", ".join(sorted(used)) or None,
        remark=_remark(probe, needed - used),
        probe=probe,
    )


def _needed(probe: models.GradientProbe) -> set[str]:
    ways = {"bpda": probe.zero_share > 0.5, "eot": probe.answers_change}
    return {way for way, is_needed in ways.items() if is_needed}


def _victim(
    subject: Subject, used: set[str], eot_samples: int
) -> models.Classifier:
    purifier = subject.purifier
    if purifier is None or subject.defended is None:
        return subject.classifier
    victim = subject.defended
    if "bpda" in used:
        victim = subject.classifier.behind(
            models.with_identity_backward(purifier)
        )
    if "eot" in used:
        victim = models.averaged(victim, eot_samples)
    return victim


def _remark(probe: models.GradientProbe, lacking: set[str]) -> str | None:
    if lacking:
        return NOT_ADAPTIVE
    if probe.non_finite_share > 0.0:
        return NOT_FINITE
    return None
