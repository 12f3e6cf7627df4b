"""Datasets, and the HDF5 store of adversarial sets."""

from data.adversarial_format import Shard
from data.adversarial_set import AdversarialSet
from data.adversarial_set_writer import (
    AdversarialSetWriter,
    ShardSink,
    default_shard_size,
)
from data.dataset import Dataset
from data.datasets import DATASETS, load
from data.import_npy import import_npy_pairs
from data.order import steps_per_epoch
from data.provenance import Provenance, package_versions
from data.splits import SPLITS

__all__ = [
    "AdversarialSet",
    "AdversarialSetWriter",
    "DATASETS",
    "Dataset",
    "Provenance",
    "SPLITS",
    "Shard",
    "ShardSink",
    "default_shard_size",
    "import_npy_pairs",
    "load",
    "package_versions",
    "steps_per_epoch",
]
