"""A tiny run that many tests look at, and small things to train."""

import contextlib
import importlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import data
from ape_gan_tf import command_line

# 12 and 6 epochs of 4 steps: long enough to be killed on the way.
TINY_FLAGS = (
    "--limit=64",
    "--eval_limit=32",
    "--classifier_epochs=12",
    "--classifier_batch_size=16",
    "--attack_params=epsilon=0.4,epsilon_min=0",
    "--epochs=6",
    "--batch_size=16",
    "--learning_rate=1e-3",
    "--schedule=cosine",
    "--checkpoint_every=5",
    "--epsilons=0.3",
    "--threat_models=oblivious,white_box",
    "--seed=1",
)


def run_command(name, *words):
    """Runs a command in this process; returns its exit code."""
    module = importlib.import_module(f"ape_gan_tf.{name}")
    return command_line.run(
        module.define_flags,
        module.main,
        module.__doc__,
        argv=[name, *map(str, words)],
    )


@pytest.fixture(scope="session")
def command():
    return run_command


class TinyRun(NamedTuple):
    """A finished `train` run."""

    workdir: Path
    flags: tuple[str, ...]
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """`train`, from nothing to an exported purifier; tests only read it."""
    workdir = tmp_path_factory.mktemp("tiny") / "run"
    with (
        contextlib.redirect_stdout(io.StringIO()) as stdout,
        contextlib.redirect_stderr(io.StringIO()) as stderr,
    ):
        code = run_command("train", f"--workdir={workdir}", *TINY_FLAGS)
    if code:
        pytest.fail(f"train returned {code}:\n{stderr.getvalue()}")
    return TinyRun(workdir, TINY_FLAGS, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="session")
def make_pairs():
    """Writes an adversarial set of random images with noise."""

    def make(path, count=64, shape=(8, 8, 1), seed=0):
        generator = np.random.default_rng(seed)
        images = generator.random((count, *shape), dtype=np.float32)
        noise = generator.uniform(-0.2, 0.2, images.shape).astype(np.float32)
        adversarial = np.clip(images + noise, 0.0, 1.0)
        change = np.abs(adversarial - images).reshape(count, -1)
        writer = data.AdversarialSetWriter(
            path,
            data.Provenance(
                attack="fgsm",
                params={"epsilon": 0.2},
                threat_model="oblivious",
                seed=seed,
                dataset="digits",
                split="train",
                classifier_fingerprint="somebody",
            ),
            count=count,
            image_shape=shape,
        )
        index = np.arange(count)
        (shard,) = writer.missing()
        with writer.shard(shard) as sink:
            sink.append(
                images=images,
                adversarial=adversarial,
                labels=index % 10,
                index=index,
                target=np.full_like(index, -1),
                epsilon=np.full(count, 0.2, np.float32),
                success=np.ones(count, bool),
                l0=np.count_nonzero(change, -1).astype(np.float32),
                l2=np.sqrt((change**2).sum(-1)),
                linf=change.max(-1),
                gradient_evaluations=np.ones_like(index),
            )
        return data.AdversarialSet.open(path)

    return make
