"""Purifiers in ART, whose gradients are worked out by hand here."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import models

pytest.importorskip(
    "art", reason="the Adversarial Robustness Toolbox is not installed"
)
from art.attacks.evasion import (  # noqa: E402
    DeepFool,
    ProjectedGradientDescent,
)
from art.estimators.classification import (  # noqa: E402
    TensorFlowV2Classifier,
)

from ape_gan_tf.integrations.art import (  # noqa: E402
    PurifierPreprocessor,
    defended_estimator,
    estimator,
)

SHAPE = (3, 4, 1)
CLASSES = 3
RANGES = [(0.0, 1.0), (0.0, 255.0), (-1.0, 1.0)]
WEIGHTS = np.random.default_rng(5).normal(size=(12, CLASSES))
WEIGHTS = WEIGHTS.astype(np.float32)
IMAGES = np.random.default_rng(6).uniform(0.3, 0.7, (9, *SHAPE))
IMAGES = IMAGES.astype(np.float32)
LABELS = np.arange(9) % CLASSES


def linear(images, training=False):
    """A classifier whose class gradients are the columns of `WEIGHTS`."""
    return tf.reshape(images, (-1, 12)) @ WEIGHTS


def mirrored(images):
    """A purifier that moves a gradient to other pixels."""
    return images[:, :, ::-1]


def make_classifier():
    return models.Classifier.from_callable(
        linear,
        image_shape=SHAPE,
        num_classes=CLASSES,
        fingerprint="linear",
    )


def make_purifier(function=mirrored):
    return models.Purifier.from_callable(
        function, image_shape=SHAPE, fingerprint=function.__name__
    )


def behind_preprocessor(preprocessor, model=linear, **options):
    """The estimator that people build: a classifier with a preprocessor."""
    return TensorFlowV2Classifier(
        model=model,
        nb_classes=CLASSES,
        input_shape=SHAPE,
        loss_object=keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction="sum"
        ),
        clip_values=preprocessor.clip_values,
        preprocessing_defences=preprocessor,
        **options,
    )


@pytest.fixture
def preprocessed():
    return behind_preprocessor(PurifierPreprocessor(make_purifier()))


@pytest.fixture
def composed():
    return defended_estimator(make_classifier(), make_purifier())


def logits_of(purified):
    return purified.reshape(-1, 12).astype(np.float64) @ WEIGHTS


def class_gradients(of_purified_image):
    """`[K, H, W, C]`: those of the classifier, or of both together."""
    gradients = WEIGHTS.T.reshape(CLASSES, *SHAPE)
    return gradients if of_purified_image else gradients[:, :, ::-1]


def loss_gradients(logits, labels):
    """Of the cross-entropies with respect to the classifier's images."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    errors = powers / powers.sum(1, keepdims=True) - np.eye(CLASSES)[labels]
    return (errors @ WEIGHTS.T).reshape(-1, *SHAPE)


@pytest.mark.parametrize("kind", ["preprocessed", "composed"])
def test_predicts_what_the_classifier_says_of_the_purified(kind, request):
    predicted = request.getfixturevalue(kind).predict(IMAGES)
    np.testing.assert_allclose(
        predicted, logits_of(IMAGES[:, :, ::-1]), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["preprocessed", "composed"])
def test_gradients_of_the_loss_go_through_the_purifier(kind, request):
    made = request.getfixturevalue(kind)
    gradients = made.loss_gradient(IMAGES, np.eye(CLASSES)[LABELS])
    expected = loss_gradients(logits_of(IMAGES[:, :, ::-1]), LABELS)
    np.testing.assert_allclose(
        gradients, expected[:, :, ::-1], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("kind", ["preprocessed", "composed"])
def test_gradients_of_named_classes_go_through_the_purifier(kind, request):
    made = request.getfixturevalue(kind)
    expected = class_gradients(of_purified_image=False)
    of_one = made.class_gradient(IMAGES, label=1)
    np.testing.assert_allclose(of_one, expected[None, 1:2].repeat(9, 0))
    of_each = made.class_gradient(IMAGES, label=LABELS)
    np.testing.assert_allclose(of_each[:, 0], expected[LABELS])


def test_gradients_of_all_classes_stop_at_the_preprocessor(preprocessed):
    """The trap. If ART mends it, docs and docstring have to say so."""
    gradients = preprocessed.class_gradient(IMAGES)
    expected = class_gradients(of_purified_image=True)
    np.testing.assert_allclose(gradients, expected[None].repeat(9, 0))


def test_gradients_of_all_classes_go_through_the_composed(composed):
    gradients = composed.class_gradient(IMAGES)
    expected = class_gradients(of_purified_image=False)
    np.testing.assert_allclose(gradients, expected[None].repeat(9, 0))


def share_fooled(made, attack):
    before = made.predict(IMAGES).argmax(1)
    after = made.predict(attack.generate(IMAGES)).argmax(1)
    return np.mean(before != after)


def test_deepfool_reports_false_robustness_behind_the_preprocessor(
    preprocessed, composed
):
    options = {"max_iter": 3, "verbose": False}
    assert share_fooled(preprocessed, DeepFool(preprocessed, **options)) < 0.5
    assert share_fooled(composed, DeepFool(composed, **options)) == 1.0
    # With fewer gradients than classes it names them, and is not misled.
    options["nb_grads"] = 2
    assert share_fooled(preprocessed, DeepFool(preprocessed, **options)) == 1.0


def test_pgd_is_the_same_attack_on_both(preprocessed, composed):
    options = {"eps": 0.1, "eps_step": 0.03, "max_iter": 5, "verbose": False}
    first, second = (
        ProjectedGradientDescent(made, **options).generate(
            IMAGES, np.eye(CLASSES)[LABELS]
        )
        for made in (preprocessed, composed)
    )
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("clip_values", RANGES)
def test_images_are_brought_to_the_unit_range_and_back(clip_values):
    low, high = clip_values
    preprocessor = PurifierPreprocessor(
        make_purifier(tf.square), clip_values=clip_values
    )
    images = low + (high - low) * IMAGES
    labels = np.eye(CLASSES)
    purified, same = preprocessor(images, labels)
    assert purified.dtype == np.float32
    np.testing.assert_allclose(
        purified, low + (high - low) * np.square(IMAGES), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(same, labels)


@pytest.mark.parametrize("clip_values", RANGES)
def test_gradients_of_the_loss_know_the_range(clip_values):
    low, high = clip_values
    width = high - low
    made = behind_preprocessor(
        PurifierPreprocessor(make_purifier(tf.square), clip_values=clip_values),
        model=lambda images, training: linear((images - low) / width),
    )
    gradients = made.loss_gradient(
        low + width * IMAGES, np.eye(CLASSES)[LABELS]
    )
    # d(u^2)/du = 2u, and u changes by 1 / width.
    outer = loss_gradients(logits_of(np.square(IMAGES)), LABELS)
    np.testing.assert_allclose(
        gradients * width, outer * 2 * IMAGES, rtol=1e-3, atol=1e-5
    )


def test_the_clip_values_of_an_estimator_are_taken(composed):
    preprocessor = PurifierPreprocessor(
        make_purifier(), clip_values=composed.clip_values
    )
    assert preprocessor.clip_values == (0.0, 1.0)


def test_edges_that_rounding_has_moved_are_taken():
    mean, std = 0.1307, 0.3081
    clip_values = ((0 - mean) / std, (1 - mean) / std)
    preprocessor = PurifierPreprocessor(
        make_purifier(), clip_values=clip_values
    )
    edges = np.float32(clip_values)[[0, 1] * 6].reshape(1, *SHAPE)
    purified, _ = preprocessor(edges)
    np.testing.assert_allclose(purified, edges[:, :, ::-1], rtol=1e-6)


def test_double_precision_as_attacks_make_it_is_taken():
    preprocessor = PurifierPreprocessor(make_purifier())
    purified, labels = preprocessor(IMAGES.astype(np.float64))
    assert purified.dtype == np.float32 and labels is None
    np.testing.assert_array_equal(purified, IMAGES[:, :, ::-1])


def test_an_empty_batch_is_taken():
    purified, _ = PurifierPreprocessor(make_purifier())(IMAGES[:0])
    assert purified.shape == (0, *SHAPE)


def test_forward_works_inside_a_compiled_function():
    preprocessor = PurifierPreprocessor(make_purifier())
    compiled = tf.function(lambda images: preprocessor.forward(images)[0])
    np.testing.assert_array_equal(compiled(IMAGES), IMAGES[:, :, ::-1])


@pytest.mark.parametrize("apply_fit", [False, True])
def test_training_images_are_purified_on_request_alone(apply_fit):
    seen = []
    made = behind_preprocessor(
        PurifierPreprocessor(make_purifier(), apply_fit=apply_fit),
        train_step=lambda model, images, labels: seen.append(images.numpy()),
    )
    made.fit(IMAGES, LABELS, batch_size=len(IMAGES), nb_epochs=1)
    expected = IMAGES[:, :, ::-1] if apply_fit else IMAGES
    # ART shuffles them.
    np.testing.assert_array_equal(
        np.sort(seen[0], axis=0), np.sort(expected, axis=0)
    )


def test_images_are_left_alone_without_apply_predict():
    preprocessor = PurifierPreprocessor(make_purifier(), apply_predict=False)
    predicted = behind_preprocessor(preprocessor).predict(IMAGES)
    np.testing.assert_allclose(predicted, logits_of(IMAGES), rtol=1e-4)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, *SHAPE), np.uint8), "floating point.*got dtype uint8"),
        (np.zeros((1, 3, 5, 1), np.float32), r"shape \(None, 3, 4, 1\), got"),
        (np.zeros(SHAPE, np.float32), r"shape \(None, 3, 4, 1\), got"),
        (255 * IMAGES, r"clip_values, \(0.0, 1.0\), got values from"),
        (IMAGES - 0.5, r"clip_values, \(0.0, 1.0\), got values from -0"),
        (np.full((1, *SHAPE), np.nan, np.float32), "got values from nan"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    preprocessor = PurifierPreprocessor(make_purifier())
    with pytest.raises(ValueError, match=message):
        preprocessor(images)


@pytest.mark.parametrize(
    "clip_values", [(1.0, 0.0), (0.0,), 1.0, (0.0, np.nan), (0.0, np.inf), "ab"]
)
def test_clip_values_that_are_no_range_are_refused(clip_values):
    with pytest.raises(ValueError, match="clip_values must be"):
        PurifierPreprocessor(make_purifier(), clip_values=clip_values)


def test_clip_values_of_every_pixel_are_refused():
    with pytest.raises(ValueError, match="clip_values must be"):
        PurifierPreprocessor(make_purifier(), clip_values=np.zeros((2, *SHAPE)))


def test_a_function_is_no_purifier_for_the_preprocessor():
    with pytest.raises(ValueError, match="purifier must be a Purifier, got fu"):
        PurifierPreprocessor(mirrored)


@pytest.mark.parametrize(
    "make", [estimator, lambda model: defended_estimator(model, mirrored)]
)
def test_a_keras_model_has_to_become_a_classifier_first(make):
    model = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten()])
    with pytest.raises(ValueError, match="Classifier.from_keras"):
        make(model)


def test_a_purifier_of_another_shape_is_refused():
    other = models.Purifier.from_callable(
        mirrored, image_shape=(5, 5, 1), fingerprint="other"
    )
    with pytest.raises(ValueError, match="purifier must be for images"):
        defended_estimator(make_classifier(), other)


def test_the_composed_estimator_knows_its_classifier(composed):
    assert composed.nb_classes == CLASSES
    assert composed.input_shape == SHAPE
    np.testing.assert_array_equal(composed.clip_values, [0.0, 1.0])


def test_the_bare_estimator_is_that_of_the_classifier():
    predicted = estimator(make_classifier()).predict(IMAGES)
    np.testing.assert_allclose(predicted, logits_of(IMAGES), rtol=1e-4)


def test_a_gradient_does_not_depend_on_the_batch(composed):
    labels = np.eye(CLASSES)[LABELS]
    together = composed.loss_gradient(IMAGES, labels)
    alone = composed.loss_gradient(IMAGES[:1], labels[:1])
    np.testing.assert_allclose(together[:1], alone, rtol=1e-4, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_logits(composed):
    losses = composed.compute_loss(IMAGES, np.eye(CLASSES)[LABELS])
    logits = logits_of(IMAGES[:, :, ::-1])
    chosen = logits[np.arange(9), LABELS]
    expected = np.log(np.exp(logits).sum(1)) - chosen
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_a_preprocessor_says_what_it_is():
    text = repr(PurifierPreprocessor(make_purifier(), clip_values=(0, 255)))
    assert "mirrored" in text and "clip_values=(0.0, 255.0)" in text


def test_without_art_the_import_says_what_to_install():
    code = (
        "import sys; sys.modules['art'] = None; "
        "import ape_gan_tf.integrations.art"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ape_gan_tf.integrations.art needs")
    assert "pip install 'ape-gan-tf[art]'" in last
