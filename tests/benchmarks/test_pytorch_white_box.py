"""Crafting and updating in PyTorch must be ours, or its speed says nothing."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

import ape_gan_tf
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer

torch = pytest.importorskip("torch")

TOTAL_STEPS = 2
BATCH_SIZE = 12


@pytest.fixture
def white_box(benchmarks):
    # Beside other tests, PyTorch's threads wait for each other for seconds.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("pytorch_white_box")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def classifier():
    return ape_gan_tf.load_pretrained("target_c")


@pytest.fixture(scope="module")
def batch():
    """Digits, and the same moved by random signs."""
    dataset = ape_gan_tf.load_dataset("digits")
    digits = next(iter(dataset.batches("train", BATCH_SIZE)))
    clean = digits["images"].numpy()
    signs = np.random.default_rng(0).choice([-1, 1], clean.shape)
    stored = np.clip(clean + 0.3 * signs, 0, 1).astype(np.float32)
    return {
        "images": digits["images"],
        "adversarial": tf.constant(stored),
        "labels": digits["labels"],
    }


class Twins:
    """Both steps with the same weights, on the same batch."""

    def __init__(
        self, module, classifier, batch, channels_last=False, **config
    ):
        defaults = {
            "adversary": "white_box",
            "adversary_starts": "clean,stored",
            "adversary_steps": 3,
            "adversary_step_size": 0.1,
            "batch_size": BATCH_SIZE,
            "batch_norm_momentum": 0.9,
            # The two Adams add their epsilon in different places, which
            # shows where gradients are small.
            "classification_weight": 20.0,
            "clean_fraction": 0.25,
            "content_loss": "root_mse",
            "content_weight": 100.0,
            "ema_decay": 0.995,
            "generator_steps": 1,
            "learning_rate": 1e-3,
        }
        config = PurifierConfig(**{**defaults, **config})
        self.ours = PurifierTrainer(
            config, (28, 28, 1), TOTAL_STEPS, classifier
        )
        self.theirs = module.PyTorchWhiteBoxStep(
            config, TOTAL_STEPS, classifier, channels_last=channels_last
        )
        self.theirs.load(self.ours)
        self._ours = batch
        self._theirs = self.theirs.tensors(batch)

    def crafted(self):
        """The images of ours and of PyTorch's, ours way round."""
        ours = self.ours._adversary(
            {**self._ours, "step": tf.constant(0, tf.int64)},
            self._ours["labels"],
        )
        clean, stored, labels = self._theirs
        starts = self.theirs.first_images(clean, stored)
        theirs = self.theirs.craft(clean, starts, labels)
        back = theirs.numpy().transpose(0, 2, 3, 1)[:, ::-1, ::-1]
        return ours.numpy(), back

    def step(self, number):
        """One iteration of both; the losses of ours and of PyTorch's."""
        ours = self.ours.train_step(
            {**self._ours, "step": tf.constant(number, tf.int64)}
        )
        theirs = self.theirs(*self._theirs)
        return [float(x) for x in ours], [x.item() for x in theirs]


def kernels_of(weights):
    """The four of our generator, as PyTorch has them."""
    return [
        array[::-1, ::-1].transpose(3, 2, 0, 1)
        for array in weights
        if array.ndim == 4
    ]


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_same_start_is_led_to_the_same_images(
    white_box, classifier, batch, channels_last
):
    twins = Twins(white_box, classifier, batch, channels_last)
    ours, theirs = twins.crafted()
    clean = batch["images"].numpy()
    assert np.abs(ours - clean).max() == pytest.approx(0.3, abs=1e-6)
    assert np.abs(ours - clean).mean() > 0.05
    # Where a gradient is almost zero, rounding decides about its sign.
    differs = np.abs(ours - theirs) > 1e-5
    assert differs.mean() < 2e-3


def test_random_starts_fill_the_ball(white_box, classifier, batch):
    twins = Twins(white_box, classifier, batch, adversary_starts="random,clean")
    clean, stored, _ = twins._theirs
    starts = twins.theirs.first_images(clean, stored).numpy()
    half = BATCH_SIZE // 2
    np.testing.assert_array_equal(starts[half:], clean[half:])
    # Of a grey pixel nothing is clipped.
    grey = (clean[:half] > 0.3) & (clean[:half] < 0.7)
    change = np.sort((starts[:half] - clean.numpy()[:half])[grey.numpy()])
    expected = np.linspace(-0.3, 0.3, len(change))
    np.testing.assert_allclose(change, expected, atol=0.05)
    assert 0 <= starts.min() and starts.max() <= 1


@pytest.mark.parametrize(
    "config",
    [
        {"adversarial_weight": 0.0},
        {"adversarial_weight": 30.0, "content_loss": "mse"},
        {"adversarial_weight": 0.0, "classification_weight": 0.0},
    ],
)
def test_the_update_is_the_same(white_box, classifier, batch, config):
    twins = Twins(white_box, classifier, batch, **config)
    before = kernels_of(twins.ours.generator.get_weights())
    ours, theirs = twins.step(0)
    assert len(ours) == len(twins.ours.loss_names)
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    after = kernels_of(twins.ours.generator.get_weights())
    found = [
        layer.weight.detach().numpy()
        for layer in twins.theirs.generator
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))
    ]
    for old, wanted, new in zip(before, after, found, strict=True):
        # Adam's first step is as long for a gradient that is almost zero,
        # whose sign rounding decides, as for any other. A discriminator, which
        # has made such a step before, adds its own.
        error = np.linalg.norm(new - wanted) / np.linalg.norm(wanted - old)
        assert error < 0.15
    # Which the next crafting sees; with AVX-512 signs are rounded otherwise.
    ours, theirs = twins.step(1)
    np.testing.assert_allclose(theirs, ours, rtol=0.06)


def test_the_averages_move_alike(white_box, classifier, batch):
    # With a learning rate of 0 only those of batch normalisation do.
    twins = Twins(
        white_box,
        classifier,
        batch,
        adversarial_weight=0.0,
        learning_rate=0.0,
    )
    before = twins.ours._average.values()
    for number in range(TOTAL_STEPS):
        twins.step(number)
    ours = twins.ours._average.values()
    theirs = twins.theirs.average.values
    moved = 0
    for old, wanted, found in zip(before, ours, theirs, strict=True):
        if wanted.ndim == 1:
            # PyTorch divides a variance by the pixels less one.
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-6)
            moved += np.abs(wanted - old).max() > 1e-3
    assert moved == 6


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_activation_is_in_the_layout_asked_for(
    white_box, classifier, batch, channels_last
):
    twins = Twins(white_box, classifier, batch, channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    seen = []

    def look(module, _, features):
        if features.ndim == 4 and features.shape[1] > 1:
            seen.append(features.is_contiguous(memory_format=layout))

    for network in (twins.theirs.generator, twins.theirs._classifier):
        for module in network:
            module.register_forward_hook(look)
    twins.step(0)
    assert len(seen) > 50 and all(seen)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"adversary": "content"}, "adversary must be 'white_box' .*'content'"),
        ({"adversary_norm": "l2"}, "adversary_norm must be 'linf' .*'l2'"),
        ({"adversary_warmup": 0.5}, "adversary_warmup must be 0.0 .*0.5"),
        ({"consistency": "kl"}, "consistency must be 'labels' .*'kl'"),
    ],
)
def test_what_the_twin_does_not_have_is_refused(
    white_box, classifier, config, message
):
    config = PurifierConfig(**{"adversary": "white_box", **config})
    with pytest.raises(ValueError, match=message):
        white_box.PyTorchWhiteBoxStep(config, TOTAL_STEPS, classifier)


def test_the_classifiers_loss_needs_a_classifier(white_box):
    step = importlib.import_module("pytorch_step")
    config = PurifierConfig(classification_weight=0.5)
    with pytest.raises(ValueError, match="classifier must be given .* 0.5"):
        step.PyTorchStep(config, TOTAL_STEPS)
