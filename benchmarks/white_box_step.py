"""How fast does our step craft and train, beside eager PyTorch's?

    python benchmarks/white_box_step.py --data_dir=DIR

measures, in alternating rounds of one run, images per second of a training
step that first crafts its whole batch, by projected gradient descent through
the purifier and the frozen target C, and then updates the purifier:

* ours as the training loop runs it, with XLA and without; the mode that the
  flagfile ships is the one that counts,
* the same networks, weights, attack, losses, optimizer and average in eager
  PyTorch, in its default layout and in channels_last (`pytorch_white_box.py`).

Any flag of `train` wins over the flagfile and over what is pinned here:
`--adversary_steps=4`, `--batch_size=128`, `--adversarial_weight=0.02` (which
adds the discriminator). Fails (exit code 1) if ours is not at least 1.3 times
either of PyTorch's.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

# A script beside this one has the name of a package of ours, which must be
# found first.
sys.path.pop(0)
import ape_gan_tf
import attacks
import data
import models
from ape_gan_tf.command_line import UsageError
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer

sys.path.append(str(Path(__file__).resolve().parent))
import contestants
from contestants import OURS, PYTORCH, OurStep, of_ours, of_pytorch
from pytorch_white_box import PyTorchWhiteBoxStep
from rounds import alternate

CLASSIFIER = "target_c"
PINNED = ("--adversary=white_box", "--adversary_steps=7")
LEAST_SPEEDUP = {False: 1.3, True: 1.3}


def main() -> int:
    parser = _parser()
    arguments, flags = parser.parse_known_args()
    arguments.flags = [*PINNED, *flags]
    try:
        config, shipped_xla = contestants.shipped(
            arguments.flagfile, *arguments.flags
        )
    except UsageError as error:
        parser.error(str(error))
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(arguments, config, shipped_xla, Path(folder))
    return contestants.conclude(report, _text(report), arguments.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # Or a flag of `train` would be taken for one of ours.
        allow_abbrev=False,
    )
    contestants.add_options(
        parser,
        [
            ("rounds", 7, "rounds that count"),
            ("steps", 10, "training steps of each contestant in a round"),
        ],
        flagfile="mnist_white_box_3.flags",
    )
    parser.add_argument(
        "--data_dir",
        type=Path,
        help="folder of mnist.npz; without it the images are the digits",
    )
    return parser


def _measure(
    arguments: argparse.Namespace,
    config: PurifierConfig,
    shipped_xla: bool,
    folder: Path,
) -> dict[str, Any]:
    steps, rounds = arguments.steps, arguments.rounds
    total_steps = (rounds + 1) * steps
    classifier = ape_gan_tf.load_pretrained(CLASSIFIER)
    dataset = data.load(
        "mnist" if arguments.data_dir else "digits",
        data_dir=arguments.data_dir,
    )
    batch = first_batch(dataset, config, classifier)
    runs = {}
    for xla, name in OURS.items():
        trainer = PurifierTrainer(
            config, dataset.image_shape, total_steps, classifier, xla=xla
        )
        step = OurStep(trainer, xla, folder / f"xla_{xla}")
        runs[name] = of_ours(step, iter(numbered(batch)), steps)
    for channels_last, name in PYTORCH.items():
        theirs = PyTorchWhiteBoxStep(
            config, total_steps, classifier, channels_last=channels_last
        )
        theirs.load(trainer)
        runs[name] = of_pytorch(theirs, theirs.tensors(batch), steps)
    timings = alternate(runs, rounds)
    return {
        **contestants.environment(),
        "setup": {
            "flagfile": arguments.flagfile,
            "flags": arguments.flags,
            "shipped_xla": shipped_xla,
            "classifier": CLASSIFIER,
            "dataset": dataset.name,
            "image_shape": dataset.image_shape,
            "rounds": rounds,
            "steps": steps,
            "config": dataclasses.asdict(config),
        },
        "steps": contestants.speeds(timings, steps, config.batch_size),
        "speedups": contestants.speedups(timings),
        "required": contestants.required_speedups(
            timings, shipped_xla, LEAST_SPEEDUP
        ),
    }


def first_batch(
    dataset: data.Dataset, config: PurifierConfig, classifier: models.Classifier
) -> dict[str, tf.Tensor]:
    """The first training images, with FGSM images of the classifier."""
    batch = next(iter(dataset.batches("train", config.batch_size)))
    fgsm = attacks.get("fgsm", epsilon=config.adversary_epsilon)
    found = fgsm(classifier, batch["images"], batch["labels"])
    return {
        "images": batch["images"],
        "adversarial": tf.constant(found.adversarial),
        "labels": batch["labels"],
    }


def numbered(batch: dict[str, tf.Tensor]) -> tf.data.Dataset:
    """One batch again and again, with the step on which starts depend."""
    batches = tf.data.Dataset.from_tensors(batch).repeat().enumerate()
    return batches.map(lambda step, content: {**content, "step": step})


def _text(report: dict[str, Any]) -> str:
    setup = report["setup"]
    config = setup["config"]
    length = config["adversary_step_size"]
    return contestants.text(
        report,
        f"{setup['flagfile']} {' '.join(setup['flags'])} "
        f"({OURS[setup['shipped_xla']]} ships), {setup['classifier']}, "
        f"{setup['dataset']} {tuple(setup['image_shape'])}, batch "
        f"{config['batch_size']}, {config['adversary_steps']} steps of "
        f"{'default length' if length is None else length} in Linf "
        f"{config['adversary_epsilon']} from {config['adversary_starts']}, "
        f"weights of the losses: {config['content_loss']} "
        f"{config['content_weight']}, adversarial "
        f"{config['adversarial_weight']}, classification "
        f"{config['classification_weight']}; clean fraction "
        f"{config['clean_fraction']}, decay of the average "
        f"{config['ema_decay']}, seed {config['seed']}; "
        f"{setup['rounds']} rounds of {setup['steps']} training steps",
        report["steps"],
    )


if __name__ == "__main__":
    sys.exit(main())
