"""Networks: APE-GAN, the target classifiers, and wrappers around any."""

from models.ape_gan import GENERATORS, discriminator, generator
from models.classifier import Classifier
from models.fingerprint import defended as defended_fingerprint
from models.purifier import Purifier
from models.targets import TARGETS, target

__all__ = (
    "GENERATORS",
    "TARGETS",
    "Classifier",
    "Purifier",
    "defended_fingerprint",
    "discriminator",
    "generator",
    "target",
)
