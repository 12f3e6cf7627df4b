"""Networks: APE-GAN, the classifiers it protects, wrappers around any."""

from models.adaptive import (
    averaged,
    guess_in_place_of,
    with_identity_backward,
)
from models.ape_gan import GENERATORS, discriminator, generator
from models.applications import APPLICATIONS, application
from models.baselines import BASELINES, baseline, parse_baseline
from models.classifier import Classifier
from models.fingerprint import defended as defended_fingerprint
from models.gradient_probe import GradientProbe
from models.gradient_probe import probe as probe_gradients
from models.purifier import Purifier
from models.purifier_resnet import GUIDE, guess_logits
from models.targets import TARGETS, target

__all__ = (
    "APPLICATIONS",
    "BASELINES",
    "GENERATORS",
    "GUIDE",
    "TARGETS",
    "Classifier",
    "GradientProbe",
    "Purifier",
    "application",
    "averaged",
    "baseline",
    "defended_fingerprint",
    "discriminator",
    "generator",
    "guess_in_place_of",
    "guess_logits",
    "parse_baseline",
    "probe_gradients",
    "target",
    "with_identity_backward",
)
