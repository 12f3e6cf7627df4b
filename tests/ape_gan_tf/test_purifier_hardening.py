"""A purifier's training step against adversaries, and the frozen classifier."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import models
from ape_gan_tf import losses
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

GUESSING = {
    "generator": "purifier_resnet",
    "generator_width": 8,
    "generator_depth": 1,
    "generator_skip": True,
    "generator_classes": 10,
}


def make_classifier(seed=0):
    network = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Flatten(),
            keras.layers.Dense(
                10, kernel_initializer=keras.initializers.GlorotUniform(seed)
            ),
        ]
    )
    return models.Classifier.from_keras(network)


@pytest.fixture(scope="module")
def numbered():
    labels = tf.constant(np.arange(16) % 10, tf.int64)
    return {**make_batch(), "labels": labels, "step": tf.constant(0, tf.int64)}


def make_hardened(classifier=None, initial=None, **config):
    return PurifierTrainer(
        PurifierConfig(batch_size=16, **config),
        SHAPE,
        total_steps=10,
        classifier=classifier or make_classifier(),
        initial=initial,
    )


def make_guessing(seed=1):
    """A purifier whose paint says something, as after some training."""
    config = PurifierConfig(**GUESSING, seed=seed)
    network = config.build_generator(SHAPE)
    kernel, _ = network.get_layer("last").weights
    draw = np.random.default_rng(seed).normal(0.0, 0.5, kernel.shape)
    kernel.assign(draw)
    return models.Purifier.from_keras(network)


@pytest.mark.parametrize(
    ("consistency", "q"),
    [("labels", 0.0), ("labels", 0.7), ("kl", 0.0), ("guide", 0.0)],
)
def test_the_classifiers_loss_is_over_adversarial_and_clean_images(
    numbered, consistency, q
):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        make_guessing() if consistency == "guide" else None,
        **GUESSING if consistency == "guide" else {},
        classification_weight=2.0,
        clean_fraction=0.5,
        consistency=consistency,
        classification_q=q,
        adversarial_weight=0.0,
        generator_steps=1,
        learning_rate=0.0,
    )
    clean, adversarial = numbered["images"], numbered["adversarial"]
    before = tf.concat([adversarial, clean[:8]], 0)
    after = tf.concat([clean, clean[:8]], 0)
    purified, guess = trainer._forward(before)
    if consistency == "guide":
        # The classifier follows the guess; adversaries do not.
        assert trainer._labels(numbered) is numbered["labels"]
    if consistency != "kl":
        labels = tf.concat([numbered["labels"], numbered["labels"][:8]], 0)
        if consistency == "guide":
            labels = np.argmax(guess, -1)
        wanted = tf.one_hot(labels, 10)
        expected = keras.losses.categorical_crossentropy(
            wanted, classifier(purified), from_logits=True
        )
        if q:
            expected = (1.0 - tf.exp(-expected) ** q) / q
    else:
        expected = keras.losses.kl_divergence(
            tf.nn.softmax(classifier(after)),
            tf.nn.softmax(classifier(purified)),
        )
    found = named_losses(trainer, numbered)
    wrong = float(tf.reduce_mean(expected))
    content = float(losses.mse(after, purified))
    assert found["classification_loss"] == pytest.approx(wrong, rel=1e-4)
    assert found["content_loss"] == pytest.approx(content, rel=1e-5)
    assert found["generator_loss"] == pytest.approx(
        0.7 * content + 2.0 * wrong, rel=1e-4
    )


def test_a_guess_is_trained_without_a_classifier(numbered):
    """On adversarial and clean images, and by an attack on itself alone."""
    trainer = PurifierTrainer(
        PurifierConfig(
            **GUESSING,
            batch_size=16,
            adversary="guide",
            adversary_starts="clean",
            adversary_steps=1,
            adversary_step_size=0.1,
            adversary_epsilon=0.1,
            guide_weight=2.0,
            clean_fraction=0.25,
            adversarial_weight=0.0,
            generator_steps=1,
        ),
        SHAPE,
        total_steps=10,
    )
    clean, labels = numbered["images"], numbered["labels"]
    guess = keras.Model(
        trainer.generator.input,
        trainer.generator.get_layer(models.GUIDE).output,
    )
    with tf.GradientTape() as tape:
        tape.watch(clean)
        wrong = keras.losses.sparse_categorical_crossentropy(
            labels, guess(clean, training=False), from_logits=True
        )
    step = 0.1 * tf.sign(tape.gradient(wrong, clean))
    adversarial = tf.clip_by_value(clean + step, 0.0, 1.0)
    seen = tf.concat([adversarial, clean[:4]], 0)
    expected = keras.losses.sparse_categorical_crossentropy(
        tf.concat([labels, labels[:4]], 0),
        guess(seen, training=True),
        from_logits=True,
    )
    before = weights_of(trainer.generator)
    found = named_losses(trainer, numbered)
    wrong = float(tf.reduce_mean(expected))
    assert found["guide_loss"] == pytest.approx(wrong, rel=1e-3)
    assert found["generator_loss"] == pytest.approx(
        0.7 * found["content_loss"] + 2.0 * wrong, rel=1e-3
    )
    assert any(has_changed(before, weights_of(trainer.generator)))


@pytest.mark.parametrize("method", ["pgd", "free"])
def test_a_white_box_step_trains_the_generator_and_no_classifier(
    numbered, method
):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        adversary="white_box:3,stored:1",
        adversary_method=method,
        adversary_steps=2,
        classification_weight=1.0,
    )
    fingerprint = classifier.fingerprint
    before = weights_of(trainer.generator)
    found = tf.function(trainer.train_step)(numbered)
    assert np.isfinite(found).all()
    assert any(has_changed(before, weights_of(trainer.generator)))
    assert classifier.fingerprint == fingerprint


def test_free_moves_the_images_up_the_last_steps_gradient(numbered):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        adversary="white_box",
        adversary_method="free",
        adversary_step_size=0.1,
        adversary_starts="clean",
        classification_weight=2.0,
        clean_fraction=0.0,
        adversarial_weight=0.0,
        generator_steps=2,
        # So that both steps see the same weights.
        learning_rate=0.0,
    )
    clean, labels = numbered["images"], numbered["labels"]

    def losses_of(images):
        purified = trainer.generator(images, training=True)
        wrong = losses.classification_loss(classifier(purified), labels)
        return wrong, 0.7 * losses.mse(clean, purified) + 2.0 * wrong

    with tf.GradientTape() as tape:
        tape.watch(clean)
        loss = losses_of(clean)[1]
    direction = tf.sign(tape.gradient(loss, clean))
    moved = tf.clip_by_value(clean + 0.1 * direction, 0.0, 1.0)
    expected = float(losses_of(moved)[0])
    found = named_losses(trainer, numbered)["classification_loss"]
    assert found == pytest.approx(expected, rel=1e-3)
    assert expected > 1.01 * float(losses_of(clean)[0])


def test_crafting_sees_batch_normalisation_as_it_is_used_later(numbered):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        adversary="white_box",
        adversary_steps=1,
        adversary_step_size=0.1,
        adversary_starts="clean",
        classification_weight=1.0,
    )
    clean, labels = numbered["images"], numbered["labels"]
    before = trainer.generator.get_weights()
    found = trainer._adversary(numbered, labels)
    for old, new in zip(before, trainer.generator.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with tf.GradientTape() as tape:
        tape.watch(clean)
        purified = trainer.generator(clean, training=False)
        loss = losses.classification_loss(classifier(purified), labels)
    direction = tf.sign(tape.gradient(loss, clean))
    expected = tf.clip_by_value(clean + 0.1 * direction, 0.0, 1.0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("consistency", ["labels", "guide"])
def test_a_guess_is_trained_or_followed_in_half_precision(
    numbered, consistency, precision
):
    is_followed = consistency == "guide"
    trainer = make_hardened(
        initial=make_guessing() if is_followed else None,
        **GUESSING,
        adversary="white_box",
        adversary_steps=1,
        classification_weight=1.0,
        consistency=consistency,
        guide_weight=0.0 if is_followed else 1.0,
        precision=precision,
        generator_steps=1,
        adversarial_weight=0.0,
    )
    assert np.isfinite(trainer.train_step(numbered)).all()


def test_a_classifier_that_follows_the_guess_leaves_it_as_it_is(numbered):
    """Averages of batch normalisation included; the paint is trained."""
    initial = make_guessing()
    trainer = make_hardened(
        initial=initial,
        **GUESSING,
        adversary="white_box",
        adversary_steps=1,
        classification_weight=1.0,
        consistency="guide",
        ema_decay=0.9,
        generator_steps=1,
        adversarial_weight=0.0,
        learning_rate=0.01,
    )
    before = initial.keras_model.get_weights()
    for _ in range(3):
        found = tf.function(trainer.train_step)(numbered)
        assert np.isfinite(found).all()
    paths = [each.path for each in trainer.generator.weights]
    averages = trainer._average.values()
    for after in (trainer.generator.get_weights(), averages):
        changed = {
            path
            for path, old, new in zip(paths, before, after, strict=True)
            if not np.array_equal(old, new)
        }
        assert changed == {"paint/kernel", "last/kernel", "last/bias"}


def test_a_guess_that_was_never_trained_is_not_followed():
    with pytest.raises(ValueError, match="initial_purifier must be given"):
        make_hardened(
            **GUESSING, consistency="guide", classification_weight=1.0
        )


def test_the_classifier_must_have_the_classes_of_the_guess_it_follows():
    config = {**GUESSING, "generator_classes": 11, "consistency": "guide"}
    with pytest.raises(ValueError, match="generator_classes must .*10, got 11"):
        make_hardened(classification_weight=1.0, **config)


def test_with_kl_nothing_is_read_off_the_labels(numbered):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        adversary="white_box",
        adversary_steps=1,
        adversary_starts="clean",
        classification_weight=1.0,
        consistency="kl",
    )
    own = tf.argmax(classifier(numbered["images"]), -1)
    expected = trainer._adversary(numbered, own)
    unlabelled = {k: v for k, v in numbered.items() if k != "labels"}
    found = trainer._adversary(unlabelled, trainer._labels(unlabelled))
    np.testing.assert_array_equal(found, expected)
    assert np.isfinite(trainer.train_step(unlabelled)).all()


def test_what_is_crafted_is_worse_for_purifier_and_classifier(numbered):
    classifier = make_classifier()
    trainer = make_hardened(
        classifier,
        adversary="white_box",
        adversary_starts="clean",
        classification_weight=1.0,
    )
    clean, labels = numbered["images"], numbered["labels"]
    crafted = trainer._adversary(numbered, labels)
    assert float(tf.reduce_max(tf.abs(crafted - clean))) <= 0.3 + 1e-6

    def loss(images):
        purified = trainer.generator(images, training=False)
        return losses.classification_loss(classifier(purified), labels)

    assert loss(crafted) > loss(clean)


def test_the_purifier_is_the_moving_average(numbered):
    trainer = make_hardened(
        adversary="white_box",
        adversary_steps=1,
        classification_weight=1.0,
        ema_decay=0.99,
        generator_steps=1,
        learning_rate=1e-2,
    )
    expected = trainer.generator.get_weights()
    for count in (1, 2, 3):
        trainer.train_step(numbered)
        decay = (1 + count) / (10 + count)
        expected = [
            decay * old + (1 - decay) * new
            for old, new in zip(
                expected, trainer.generator.get_weights(), strict=True
            )
        ]
    found = trainer.purifier().keras_model.get_weights()
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    # Those of batch normalisation too, which no optimizer moves.
    assert len(found) == len(trainer.generator.weights)


def hardened_config(**changes):
    return PurifierConfig(
        batch_size=16,
        epochs=3,
        adversary="white_box:2,content:1,stored:1",
        adversary_steps=1,
        adversary_warmup=0.5,
        adversary_starts="clean,random",
        classification_weight=1.0,
        ema_decay=0.9,
        adversarial_weight=0.0,
        generator_steps=1,
        learning_rate=1e-2,
        **changes,
    )


class _Stop(Exception):
    """Ends a training on the way."""


def test_a_white_box_training_resumes_as_if_undisturbed(tmp_path, make_pairs):
    pairs, classifier = make_pairs(tmp_path / "pairs"), make_classifier()

    def train(folder, on_checkpoint=None):
        return train_purifier(
            hardened_config(),
            pairs,
            tmp_path / folder,
            LoopSettings(checkpoint_every=5),
            classifier=classifier,
            on_checkpoint=on_checkpoint,
        )

    def stop(step, purifier):
        raise _Stop

    whole = train("whole")
    with pytest.raises(_Stop):
        train("stopped", stop)
    assert tf.train.latest_checkpoint(tmp_path / "stopped").endswith("-5")
    resumed = train("stopped")
    for mine, theirs in zip(
        resumed.keras_model.get_weights(),
        whole.keras_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-5)


def test_another_classifier_in_the_same_place_is_refused(tmp_path, make_pairs):
    pairs = make_pairs(tmp_path / "pairs")
    claimed = {"directory": tmp_path / "c", "settings": LoopSettings()}
    config = hardened_config()
    train_purifier(config, pairs, classifier=make_classifier(), **claimed)
    with pytest.raises(ValueError, match="trained_with.fingerprint was"):
        train_purifier(config, pairs, classifier=make_classifier(1), **claimed)


def test_a_classifier_that_is_needed_must_be_given_and_fit():
    config = PurifierConfig(adversary="white_box")
    with pytest.raises(
        ValueError, match="classifier must be given where adversary is 'white_"
    ):
        PurifierTrainer(config, SHAPE, 10)
    with pytest.raises(
        ValueError, match=r"classifier must be for images of shape \(8, 8, 3\)"
    ):
        PurifierTrainer(config, (8, 8, 3), 10, make_classifier())
