"""APE-GAN for TensorFlow and Keras: purify images before a classifier.

The names that matter are here; they are imported when they are first used, so
that a command's `--help` does not wait for TensorFlow.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

# name -> (module, name in the module). None may be called like a module of
# this package: importing that one would take the name's place.
_EXPORTS = {
    "AdversarialSet": ("data", "AdversarialSet"),
    "Classifier": ("models", "Classifier"),
    "ClassifierConfig": ("ape_gan_tf.classifier_training", "ClassifierConfig"),
    "LoopSettings": ("ape_gan_tf.training_loop", "LoopSettings"),
    "Purifier": ("ape_gan_tf.purifier", "Purifier"),
    "PurifierConfig": ("ape_gan_tf.purifier_config", "PurifierConfig"),
    "craft_set": ("ape_gan_tf.crafting", "craft"),
    "export_purifier": ("ape_gan_tf.serving.saved_model", "export"),
    "get_attack": ("attacks", "get"),
    "load_dataset": ("data", "load"),
    "fit_classifier": ("ape_gan_tf.classifier_training", "train_classifier"),
    "fit_purifier": ("ape_gan_tf.purifier_training", "train_purifier"),
    "import_npy_pairs": ("data", "import_npy_pairs"),
    "load_pretrained": ("ape_gan_tf.loading", "load_pretrained"),
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'ape_gan_tf' has no attribute {name!r}")
    module, attribute = _EXPORTS[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})


def _refuse_shadowed_packages() -> None:
    """`data`, `models` and `attacks` are common names: are they ours?

    `python -m` looks into the current folder first, where somebody's own
    `models/` would be imported in place of this project's.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("data", "models", "attacks"):
        spec = importlib.util.find_spec(name)
        places = list(spec.submodule_search_locations or []) if spec else []
        if not places and spec and spec.origin:
            places = [spec.origin]
        found = Path(places[0]).resolve() if places else None
        if found != home / name:
            raise ImportError(
                f"ape_gan_tf needs its own package {name!r} at "
                f"{home / name}, but Python finds "
                f"{found or 'nothing'} under that name. Run from another "
                "folder, or with python -P (Python 3.11 and later), so that "
                "the current folder does not come first"
            )


_refuse_shadowed_packages()
