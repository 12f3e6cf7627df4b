"""Networks: APE-GAN, the classifiers it protects, wrappers around any."""

from models.ape_gan import GENERATORS, discriminator, generator
from models.applications import APPLICATIONS, application
from models.classifier import Classifier
from models.fingerprint import defended as defended_fingerprint
from models.purifier import Purifier
from models.targets import TARGETS, target

__all__ = (
    "APPLICATIONS",
    "GENERATORS",
    "TARGETS",
    "Classifier",
    "Purifier",
    "application",
    "defended_fingerprint",
    "discriminator",
    "generator",
    "target",
)
