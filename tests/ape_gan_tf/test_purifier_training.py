"""APE-GAN's training step: what it computes, and what it changes."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf import losses
from ape_gan_tf.loss_history import read_losses
from ape_gan_tf.purifier_config import PurifierConfig
from ape_gan_tf.purifier_training import PurifierTrainer, train_purifier
from ape_gan_tf.training_loop import LoopSettings
from tests.ape_gan_tf.purifier_steps import (
    SHAPE,
    has_changed,
    make_batch,
    named_losses,
    weights_of,
)


def make_trainer(**config):
    return PurifierTrainer(PurifierConfig(**config), SHAPE, total_steps=10)


@pytest.fixture(scope="module")
def batch():
    return make_batch()


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


def batch_norms(model):
    """Those of feature maps."""
    return sum(
        isinstance(layer, keras.layers.BatchNormalization)
        and len(layer.output.shape) == 4
        for layer in model.layers
    )


@pytest.mark.parametrize("xla", [False, True])
def test_batch_norm_is_one_operation_but_under_xla(batch, xla):
    trainer = PurifierTrainer(PurifierConfig(), SHAPE, 10, xla=xla)
    graph = tf.function(trainer.train_step).get_concrete_function(batch).graph
    kinds = [operation.type for operation in graph.get_operations()]
    of_generator = batch_norms(trainer.generator)
    of_discriminator = batch_norms(trainer.discriminator)
    assert of_generator > 0 and of_discriminator > 0
    # The discriminator's step has the generator once and two batches; each
    # of two generator steps has both once.
    expected = 3 * of_generator + 4 * of_discriminator
    assert kinds.count("FusedBatchNormV3") == (0 if xla else expected)


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


def test_a_step_may_be_on_crops_for_a_purifier_of_whole_images(
    tmp_path, make_pairs
):
    pairs = make_pairs(tmp_path / "pairs")
    config = PurifierConfig(
        batch_size=16, epochs=2, training_crop=4, learning_rate=1e-2
    )
    trainer = PurifierTrainer(config, SHAPE, 10)
    assert trainer.generator.input_shape == (None, 4, 4, 1)
    assert trainer.discriminator.input_shape == (None, 4, 4, 1)
    found = []
    for folder in ("a", "b"):
        settings = LoopSettings(checkpoint_every=2)
        purifier = train_purifier(config, pairs, tmp_path / folder, settings)
        assert purifier.image_shape == SHAPE
        found.append(purifier.keras_model.get_weights())
    initial = config.build_generator(SHAPE).get_weights()
    assert any((x != y).any() for x, y in zip(found[0], initial, strict=True))
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_crop_beyond_the_images_is_refused():
    config = PurifierConfig(training_crop=12)
    with pytest.raises(
        ValueError, match="training_crop must be at most .* 8x8, got 12"
    ):
        PurifierTrainer(config, SHAPE, 10)


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
        ({"training_crop": 0}, "training_crop must be a positive integer"),
        ({"training_shift": -1}, "training_shift must be an integer of 0 or"),
        (
            {"training_crop": 4, "classification_weight": 0.1},
            "training_crop must be None where .* the classifier",
        ),
        (
            {"adversary": "pgd"},
            "adversary must be one of content, guide, online,",
        ),
        ({"adversary": "stored:0"}, "adversary must have positive numbers"),
        ({"adversary": "white_box:1,stored:999"}, "adversary must leave each"),
        (
            {"adversary": "white_box", "batch_size": 2},
            "adversary_starts must leave each part at least one of 2 images",
        ),
        ({"adversary_method": "fast"}, "adversary_method must be one of"),
        (
            {"adversary_method": "free"},
            "adversary must have white_box where adversary_method is free",
        ),
        ({"adversary_epsilon": 2.0}, "adversary_epsilon must be .* got 2.0"),
        ({"adversary_norm": "l0"}, "adversary_norm must be one of l2, linf"),
        ({"clean_fraction": 1.5}, "clean_fraction must be .* got 1.5"),
        ({"clean_fraction": 0.005}, "clean_fraction must be 0, or .* of 64"),
        (
            {"content_weight": 0.0, "adversarial_weight": 0.0},
            "content_weight, adversarial_weight, .* must be above 0",
        ),
        (
            {"adversary": "white_box", "adversary_method": "free"},
            "classification_weight must be above 0 where .* free, got 0.0",
        ),
        (
            {
                "adversary": "white_box",
                "adversary_method": "free",
                "classification_weight": 1.0,
                "generator_steps": 1,
            },
            "generator_steps must be at least 2 where .* free, got 1",
        ),
        (
            {
                "adversary": "content",
                "adversary_starts": "clean",
                "training_noise_fraction": 0.5,
            },
            "training_noise_fraction must be 0 where .* got 0.5",
        ),
        ({"classification_weight": -1}, "classification_weight must be"),
        ({"consistency": "mse"}, "consistency must be one of guide, kl"),
        ({"classification_q": 1.5}, "classification_q must be .* got 1.5"),
        (
            {"consistency": "kl", "classification_q": 0.7},
            "classification_q must be 0 where consistency is kl, got 0.7",
        ),
        ({"ema_decay": 1.0}, "ema_decay must be .* got 1.0"),
        ({"guide_weight": 1.0}, "generator_classes must be given where .*1.0"),
        ({"adversary": "guide"}, "generator_classes must be given .*'guide'"),
        (
            {"consistency": "guide", "classification_weight": 1.0},
            "generator_classes must be given where consistency is 'guide'",
        ),
        (
            {"consistency": "guide", "generator_classes": 10},
            "classification_weight must be above 0 .* guide, got 0.0",
        ),
        (
            {
                "consistency": "guide",
                "generator_classes": 10,
                "classification_weight": 1.0,
                "guide_weight": 1.0,
            },
            "guide_weight must be 0 where consistency is guide, .* got 1.0",
        ),
        (
            {
                "consistency": "guide",
                "generator_classes": 10,
                "classification_weight": 1.0,
                "adversary": "white_box",
                "adversary_method": "free",
            },
            "consistency must be labels or kl where .* free, got guide",
        ),
    ],
)
def test_a_configuration_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        PurifierConfig(**config)


def test_without_an_adversarial_loss_there_is_no_discriminator(batch):
    trainer = make_trainer(adversarial_weight=0.0, generator_steps=1)
    assert trainer.discriminator is None
    assert trainer.loss_names == ("generator_loss", "content_loss")
    found = named_losses(trainer, batch)
    assert found["generator_loss"] == pytest.approx(
        0.7 * found["content_loss"], rel=1e-6
    )
    assert set(trainer.trackables()) == {"generator", "g_optimizer"}


def test_training_begins_with_a_purifier(tmp_path, make_pairs):
    first = PurifierConfig(seed=7).build_generator(SHAPE)
    initial = models.Purifier.from_keras(first)
    purifier = train_purifier(
        PurifierConfig(batch_size=16, learning_rate=0.0, epochs=1),
        make_pairs(tmp_path / "pairs"),
        tmp_path / "checkpoints",
        LoopSettings(),
        initial=initial,
    )
    for mine, theirs in zip(
        purifier.keras_model.trainable_variables,
        first.trainable_variables,
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_the_averages_of_batch_normalisation_are_taken_over():
    first = PurifierConfig(seed=7).build_generator(SHAPE)
    weights = [weight + 0.5 for weight in first.get_weights()]
    first.set_weights(weights)
    trainer = PurifierTrainer(
        PurifierConfig(), SHAPE, 10, None, models.Purifier.from_keras(first)
    )
    for mine, theirs in zip(
        trainer.generator.get_weights(), weights, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"output": "tanh"}, "'tanh', 'to_symmetric', 'to_unit'.*'sigmoid'"),
        ({"decoder_activation": "relu"}, "'decoder_1_relu'.*'decoder_1_leaky"),
    ],
)
def test_a_purifier_of_other_activations_is_refused(config, layers):
    other = PurifierConfig().build_generator(SHAPE)
    initial = models.Purifier.from_keras(other)
    with pytest.raises(
        ValueError, match=f"initial_purifier must be .*{layers}"
    ):
        PurifierTrainer(PurifierConfig(**config), SHAPE, 10, None, initial)


def test_a_purifier_of_another_network_is_refused():
    other = models.generator("purifier_resnet", SHAPE)
    initial = models.Purifier.from_keras(other)
    with pytest.raises(
        ValueError, match="initial_purifier must be .* of ape_gan_m, with"
    ):
        PurifierTrainer(PurifierConfig(), SHAPE, 10, None, initial)


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
