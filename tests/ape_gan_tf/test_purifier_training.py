"""APE-GAN's training step: what it computes, and what it changes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf import losses
from ape_gan_tf.loss_history import read_losses
from ape_gan_tf.purifier_training import (
    PurifierConfig,
    PurifierTrainer,
    train_purifier,
)
from ape_gan_tf.training_loop import LoopSettings

SHAPE = (8, 8, 1)


def make_trainer(**config):
    return PurifierTrainer(PurifierConfig(**config), SHAPE, total_steps=10)


@pytest.fixture(scope="module")
def batch():
    generator = np.random.default_rng(0)
    clean = generator.random((16, *SHAPE), dtype=np.float32)
    noise = generator.uniform(-0.3, 0.3, clean.shape).astype(np.float32)
    return {
        "images": tf.constant(clean),
        "adversarial": tf.constant(np.clip(clean + noise, 0.0, 1.0)),
    }


def weights_of(model):
    return [np.array(variable) for variable in model.trainable_variables]


def has_changed(before, after):
    return [
        bool((old != new).any()) for old, new in zip(before, after, strict=True)
    ]


def losses_now(trainer, batch):
    """All losses as the definitions have them, in training mode."""
    clean, adversarial = batch["images"], batch["adversarial"]
    purified = trainer.generator(adversarial, training=True)
    on_clean = trainer.discriminator(clean, training=True)
    on_purified = trainer.discriminator(purified, training=True)
    return {
        "discriminator": losses.discriminator_loss(on_clean, on_purified),
        "mse": losses.mse(clean, purified),
        "root_mse": losses.root_mse(clean, purified),
        "adversarial": losses.adversarial_loss(on_purified),
    }


def paper_generator_loss(trainer, batch):
    now = losses_now(trainer, batch)
    return 0.7 * now["mse"] + 0.3 * now["adversarial"]


def test_an_iteration_is_one_discriminator_and_two_generator_steps(batch):
    trainer = make_trainer()
    generator = weights_of(trainer.generator)
    discriminator = weights_of(trainer.discriminator)
    trainer.train_step(batch)
    assert any(has_changed(generator, weights_of(trainer.generator)))
    assert any(has_changed(discriminator, weights_of(trainer.discriminator)))
    optimizers = trainer.trackables()
    assert int(optimizers["d_optimizer"].iterations) == 1
    assert int(optimizers["g_optimizer"].iterations) == 2


def test_the_number_of_generator_steps_can_be_chosen(batch):
    trainer = make_trainer(generator_steps=3)
    trainer.train_step(batch)
    assert int(trainer.trackables()["d_optimizer"].iterations) == 1
    assert int(trainer.trackables()["g_optimizer"].iterations) == 3


def test_each_step_trains_one_network_alone(batch):
    # So small a step that it goes down whatever the surface looks like.
    trainer = make_trainer(learning_rate=1e-5)
    clean, adversarial = batch["images"], batch["adversarial"]
    generator = weights_of(trainer.generator)
    discriminator = weights_of(trainer.discriminator)
    d_loss = losses_now(trainer, batch)["discriminator"]

    trainer._discriminator_step(clean, adversarial)
    assert not any(has_changed(generator, weights_of(trainer.generator)))
    trained = weights_of(trainer.discriminator)
    assert any(has_changed(discriminator, trained))
    assert losses_now(trainer, batch)["discriminator"] < d_loss

    g_loss = paper_generator_loss(trainer, batch)
    trainer._generator_step(clean, adversarial)
    assert any(has_changed(generator, weights_of(trainer.generator)))
    assert not any(has_changed(trained, weights_of(trainer.discriminator)))
    assert paper_generator_loss(trainer, batch) < g_loss


@pytest.mark.parametrize(
    ("config", "content", "scale"),
    [
        ({}, "mse", 1.0),
        ({"content_loss": "root_mse"}, "root_mse", 1.0),
        # On [-1, 1] differences are twice as large.
        ({"output": "tanh"}, "mse", 4.0),
        ({"output": "tanh", "content_loss": "root_mse"}, "root_mse", 2.0),
    ],
)
def test_the_losses_are_those_of_the_definitions(batch, config, content, scale):
    # Without a learning rate all steps see the same weights.
    trainer = make_trainer(
        learning_rate=0.0, content_weight=0.9, adversarial_weight=0.02, **config
    )
    expected = losses_now(trainer, batch)
    found = dict(
        zip(trainer.loss_names, trainer.train_step(batch), strict=True)
    )
    g_loss = 0.9 * scale * expected[content] + 0.02 * expected["adversarial"]
    wanted = {
        "discriminator_loss": expected["discriminator"],
        "generator_loss": g_loss,
        "content_loss": scale * expected[content],
        "adversarial_loss": expected["adversarial"],
    }
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5)


def test_a_seed_makes_networks_and_another_seed_makes_others():
    same = [weights_of(make_trainer(seed=3).generator) for _ in range(2)]
    assert not any(has_changed(*same))
    other = weights_of(make_trainer(seed=4).generator)
    assert any(has_changed(same[0], other))


def test_half_precision_trains_and_gives_a_float32_purifier(
    tmp_path, make_pairs
):
    pairs = make_pairs(tmp_path / "pairs")
    config = PurifierConfig(
        precision="mixed_bfloat16",
        generator_steps=1,
        batch_size=16,
        epochs=2,
        learning_rate=1e-3,
    )
    purifier = train_purifier(
        config, pairs, tmp_path / "checkpoints", LoopSettings()
    )
    policies = {x.dtype_policy.name for x in purifier.keras_model.layers}
    assert policies == {"float32"}
    content = read_losses(tmp_path / "checkpoints" / "losses.csv")
    assert np.isfinite(content["content_loss"]).all()
    initial = config.build_generator(pairs.image_shape)
    trained = weights_of(purifier.keras_model)
    assert any(has_changed(weights_of(initial), trained))
    # The finished run again: loaded, not trained.
    steps = []
    again = train_purifier(
        config,
        pairs,
        tmp_path / "checkpoints",
        LoopSettings(),
        on_checkpoint=lambda step, purifier: steps.append(step),
    )
    assert again.fingerprint == purifier.fingerprint and steps == []


def test_another_configuration_or_set_is_refused(tmp_path, make_pairs):
    pairs = make_pairs(tmp_path / "pairs")
    config = PurifierConfig(batch_size=16)
    checkpoints = tmp_path / "checkpoints"
    poisoned = LoopSettings(checkpoint_every=1)
    claimed = {"settings": poisoned, "directory": checkpoints}
    with pytest.raises(KeyError):  # It stops behind the claim, untrained.
        train_purifier(config, _Failing(pairs), on_checkpoint=None, **claimed)
    changed = dataclasses.replace(config, learning_rate=0.1)
    with pytest.raises(ValueError, match=r"learning_rate was 0.0002, now 0.1"):
        train_purifier(changed, pairs, **claimed)
    other = make_pairs(tmp_path / "other", seed=5)
    with pytest.raises(ValueError, match="training_set.seed was 0, now 5"):
        train_purifier(config, other, **claimed)
    with pytest.raises(ValueError, match="training_pairs was 64, now 32"):
        train_purifier(config, pairs, limit=32, **claimed)


class _Failing:
    """A set whose disk fails once training reads it."""

    def __init__(self, pairs):
        self.count, self.image_shape = pairs.count, pairs.image_shape
        self.provenance = pairs.provenance

    def training_batches(self, *args, **kwargs):
        raise KeyError("the disk")


def test_a_batch_larger_than_the_set_is_refused(tmp_path, make_pairs):
    pairs = make_pairs(tmp_path / "pairs", count=8)
    with pytest.raises(
        ValueError, match="batch_size must be at most .* 8, got"
    ):
        train_purifier(PurifierConfig(), pairs, tmp_path / "c", LoopSettings())
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"generator": "ape_gan"}, "generator must be one of ape_gan_c, ape_g"),
        ({"content_loss": "mae"}, "content_loss must be one of mse, root_mse"),
        ({"schedule": "step"}, "schedule must be one of constant, cosine"),
        ({"precision": "float16"}, "precision must be one of float32, mixed"),
        ({"epochs": 0}, "epochs must be a positive integer, got 0"),
        ({"batch_size": -1}, "batch_size must be a positive integer"),
        ({"generator_steps": 1.5}, "generator_steps must be .* got 1.5"),
        ({"learning_rate": float("nan")}, "learning_rate must be .* got nan"),
        ({"learning_rate": -1e-3}, r"learning_rate must be a number in \[0.0"),
        ({"adam_beta1": 1.1}, "adam_beta1 must be .* got 1.1"),
        ({"content_weight": -0.1}, "content_weight must be .* got -0.1"),
        ({"adversarial_weight": np.inf}, "adversarial_weight must be .* inf"),
    ],
)
def test_a_configuration_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        PurifierConfig(**config)


# The tiny run


def test_it_learns_64_digits(tiny_run):
    content = read_losses(tiny_run.workdir / "checkpoints" / "losses.csv")
    content = content["content_loss"]
    assert content[-1] < 0.9 * content[0]


def test_the_classifier_is_not_touched(tiny_run):
    pairs = models.Classifier.load(tiny_run.workdir / "classifier")
    checkpoint = tf.train.load_checkpoint(tiny_run.workdir / "checkpoints")
    names = checkpoint.get_variable_to_shape_map()
    roots = {name.split("/")[0] for name in names}
    assert roots == {
        "_CHECKPOINTABLE_OBJECT_GRAPH",
        "d_optimizer",
        "discriminator",
        "g_optimizer",
        "generator",
        "save_counter",
        "step",
    }
    config = (tiny_run.workdir / "checkpoints" / "config.json").read_text()
    assert f'"classifier_fingerprint": "{pairs.fingerprint}"' in config
