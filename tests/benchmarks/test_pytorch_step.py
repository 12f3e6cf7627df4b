"""The PyTorch step must compute what ours does, or its speed says nothing."""

import importlib

import numpy as np
import pytest
import tensorflow as tf

from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer

torch = pytest.importorskip("torch")

TOTAL_STEPS = 3


@pytest.fixture
def pytorch_step(benchmarks):
    # Beside other tests, PyTorch's threads wait for each other for seconds.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield importlib.import_module("pytorch_step")
    torch.set_num_threads(threads)


@pytest.fixture
def pairs():
    generator = np.random.default_rng(0)
    clean = generator.random((4, 28, 28, 1), np.float32)
    signs = generator.choice([-1, 1], clean.shape)
    adversarial = np.clip(clean + 0.3 * signs, 0, 1).astype(np.float32)
    return clean, adversarial


class Twins:
    """Both steps with the same weights, on the same batch."""

    def __init__(self, module, pairs, channels_last=False, **config):
        config = PurifierConfig(adam_beta1=0.5, **config)
        self.ours = PurifierTrainer(config, (28, 28, 1), TOTAL_STEPS)
        self.theirs = module.PyTorchStep(
            config, TOTAL_STEPS, channels_last=channels_last
        )
        self.theirs.load(self.ours)
        self._pairs = pairs

    def step(self):
        """One iteration of both; the losses of ours and of PyTorch's."""
        clean, adversarial = (tf.constant(images) for images in self._pairs)
        ours = self.ours.train_step(
            {"images": clean, "adversarial": adversarial}
        )
        theirs = self.theirs(
            # PyTorch's networks are the mirror images of ours.
            *(self.theirs.batch(x[:, ::-1, ::-1].copy()) for x in self._pairs)
        )
        return [float(x) for x in ours], [x.item() for x in theirs]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("content_loss", ["mse", "root_mse"])
def test_the_same_weights_give_the_same_losses(
    pytorch_step, pairs, channels_last, content_loss
):
    # With a learning rate of 0 all four losses are of the same weights.
    twins = Twins(
        pytorch_step,
        pairs,
        channels_last,
        content_loss=content_loss,
        learning_rate=0.0,
    )
    ours, theirs = twins.step()
    np.testing.assert_allclose(theirs, ours, rtol=1e-5)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_training_goes_the_same_way(pytorch_step, pairs, schedule):
    twins = Twins(pytorch_step, pairs, learning_rate=1e-3, schedule=schedule)
    losses = [twins.step() for _ in range(TOTAL_STEPS)]
    ours, theirs = np.transpose(losses, (1, 0, 2))
    assert np.ptp(ours[:, 0]) > 0.5  # It does go somewhere.
    # The two Adams add their epsilon in different places.
    np.testing.assert_allclose(theirs, ours, rtol=0.02)


def test_the_moving_averages_move_alike(pytorch_step, pairs):
    twins = Twins(
        pytorch_step, pairs, learning_rate=0.0, batch_norm_momentum=0.9
    )
    twins.step()
    ours = twins.ours.generator.get_layer("encoder_1_batch_norm").moving_mean
    theirs = twins.theirs.generator[1].running_mean
    np.testing.assert_allclose(theirs, ours.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_every_activation_is_in_the_layout_asked_for(
    pytorch_step, pairs, channels_last
):
    step = pytorch_step.PyTorchStep(
        PurifierConfig(), TOTAL_STEPS, channels_last=channels_last
    )
    features = step.batch(pairs[0])
    wanted = torch.channels_last if channels_last else torch.contiguous_format
    for layer in step.generator[:-2]:
        features = layer(features)
        assert features.is_contiguous(memory_format=wanted)


def test_what_the_twin_does_not_have_is_refused(pytorch_step):
    config = PurifierConfig(kernel_size=5)
    with pytest.raises(ValueError, match="kernel_size must be 3 .* got 5"):
        pytorch_step.PyTorchStep(config, TOTAL_STEPS)
