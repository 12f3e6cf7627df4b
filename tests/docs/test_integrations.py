"""Runs the examples of docs/integrations.md, and checks what they make."""

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import attacks

pytest.importorskip(
    "art", reason="the Adversarial Robustness Toolbox is not installed"
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "integrations.md"
EPSILON = 0.1

pytestmark = pytest.mark.slow


class Run(NamedTuple):
    """What the document's program left.

    Attributes:
        names: Its global names.
        printed: Its standard output.
    """

    names: dict[str, Any]
    printed: str

    @property
    def images(self):
        return self.names["images"].numpy()

    @property
    def labels(self):
        return self.names["labels"].numpy()

    def error(self, images):
        """Share of images that the defended classifier gets wrong."""
        predicted = self.names["defended"].predict(images).argmax(1)
        return np.mean(predicted != self.labels)


def blocks(language):
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(
        rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    names: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("integrations")
    home = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for block in blocks("python"):
                exec(compile(block, str(DOCUMENT), "exec"), names)
    finally:
        os.chdir(home)
    assert not list(folder.iterdir())
    return Run(names, printed.getvalue())


@pytest.fixture(scope="module")
def our_error(run):
    """Of our PGD, with the document's parameters."""
    attack = attacks.get("pgd", epsilon=EPSILON, alpha=0.05, steps=10)
    defended = run.names["defended"]
    return run.error(attack(defended, run.images, run.labels).adversarial)


def test_the_images_are_the_conventions(run):
    assert run.images.shape == (16, 28, 28, 1)
    assert run.images.dtype == np.float32 and run.labels.dtype == np.int64


@pytest.mark.parametrize("name", ["foolbox_images", "pgd_images", "art_images"])
def test_pgd_of_every_library_does_as_ours(name, run, our_error):
    adversarial = np.asarray(run.names[name])
    change = np.abs(adversarial - run.images).max()
    assert 0.9 * EPSILON < change <= EPSILON + 1e-6
    assert adversarial.min() >= 0 and adversarial.max() <= 1
    # Ours keeps the best iterate of all, and starts elsewhere: two images.
    error = run.error(adversarial)
    assert error == pytest.approx(our_error, abs=2 / 16)
    assert error > run.error(run.images) + 0.25


def test_foolbox_counts_as_the_defended_classifier_does(run):
    predicted = run.names["defended"].predict(
        np.asarray(run.names["foolbox_images"])
    )
    np.testing.assert_array_equal(
        run.names["foolbox_fooled"], predicted.argmax(1) != run.labels
    )


def test_fgsm_of_cleverhans_makes_our_images(run):
    ours = attacks.get("fgsm", epsilon=EPSILON)(
        run.names["defended"], run.images, run.labels
    )
    theirs = run.names["fgsm_images"].numpy()
    # A gradient that is all but zero may have either sign.
    is_same = np.abs(theirs - ours.adversarial) < 1e-6
    assert is_same.mean() > 0.999


def test_art_predicts_what_the_defended_classifier_does(run):
    expected = run.names["defended"].predict(run.images)
    composed = run.names["composed"].predict(run.images)
    np.testing.assert_allclose(composed, expected, atol=1e-5)
    np.testing.assert_allclose(run.names["logits"], expected, atol=1e-5)


def test_the_trap_is_as_the_document_prints_it(run):
    (text,) = blocks("text")
    shown, printed = (
        np.array(
            [re.findall(r"[\d.]+", line) for line in lines.splitlines()], float
        )
        for lines in (text, run.printed)
    )
    # Whether the last of four images falls is a matter of rounding.
    np.testing.assert_allclose(printed[:, 0], shown[:, 0], atol=1.0)
    np.testing.assert_allclose(printed[:, 1:], shown[:, 1:], rtol=0.05)
