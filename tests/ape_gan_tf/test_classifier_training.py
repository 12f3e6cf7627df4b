"""Training the target classifiers, plain and adversarially."""

import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf

import attacks
import data
from ape_gan_tf.classifier_training import (
    ClassifierConfig,
    ClassifierTrainer,
    train_classifier,
)
from ape_gan_tf.loss_history import read_losses
from ape_gan_tf.training_loop import (
    LoopSettings,
    NonFiniteLossError,
    TrainingLoop,
)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def batch(digits):
    return next(iter(digits.batches("train", 8)))


def make_trainer(digits, **config):
    return ClassifierTrainer(
        ClassifierConfig(**config), digits.image_shape, 10, total_steps=10
    )


def mean_cross_entropy(classifier, images, labels):
    logits = classifier.predict(images).astype(np.float64)
    log_sums = np.log(np.exp(logits).sum(-1))
    return np.mean(log_sums - logits[np.arange(len(labels)), labels])


def test_a_step_returns_cross_entropy_and_error(digits, batch):
    trainer = make_trainer(digits, learning_rate=0.0)
    images, labels = batch["images"].numpy(), batch["labels"].numpy()
    loss, error = trainer.train_step(batch)
    classifier = trainer.classifier()
    expected = mean_cross_entropy(classifier, images, labels)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    wrong = classifier.predict(images).argmax(-1) != labels
    assert float(error) == 100.0 * wrong.mean()


def test_label_smoothing_spreads_a_share_over_all_classes(digits, batch):
    trainer = make_trainer(digits, learning_rate=0.0, label_smoothing=0.2)
    images, labels = batch["images"].numpy(), batch["labels"].numpy()
    classifier = trainer.classifier()
    of_label = mean_cross_entropy(classifier, images, labels)
    of_all = np.mean(
        [
            mean_cross_entropy(classifier, images, np.full_like(labels, other))
            for other in range(10)
        ]
    )
    loss, _ = trainer.train_step(batch)
    np.testing.assert_allclose(loss, 0.8 * of_label + 0.2 * of_all, rtol=1e-4)


def test_adversarial_training_is_half_on_fgsm_of_the_moment(digits, batch):
    trainer = make_trainer(
        digits,
        learning_rate=0.0,
        adversarial_training=True,
        adversarial_epsilon=0.2,
    )
    images, labels = batch["images"].numpy(), batch["labels"].numpy()
    classifier = trainer.classifier()
    attack = attacks.FGSM(epsilon=0.2)
    adversarial = attack(classifier, images, labels).adversarial.numpy()
    clean_loss = mean_cross_entropy(classifier, images, labels)
    adversarial_loss = mean_cross_entropy(classifier, adversarial, labels)
    assert adversarial_loss > clean_loss
    loss, _ = trainer.train_step(batch)
    np.testing.assert_allclose(
        loss, (clean_loss + adversarial_loss) / 2, rtol=1e-4
    )


@pytest.fixture(scope="module")
def scans():
    """Four digits, 8x8, as scikit-learn has them."""
    bunch = sklearn.datasets.load_digits()
    images = (bunch.images[:4, ..., None] / 16.0).astype(np.float32)
    return {"images": tf.constant(images), "labels": tf.range(4, dtype="int64")}


def make_scans_trainer(classifier, **config):
    return ClassifierTrainer(
        ClassifierConfig(classifier=classifier, **config),
        (8, 8, 1),
        10,
        total_steps=6,
    )


def make_densenet_trainer(**config):
    return make_scans_trainer("densenet40", **config)


@pytest.mark.parametrize("xla", [False, True])
def test_batch_norm_is_one_operation_but_under_xla(scans, xla):
    trainer = ClassifierTrainer(
        ClassifierConfig(classifier="densenet40"), (8, 8, 1), 10, 6, xla=xla
    )
    graph = tf.function(trainer.train_step).get_concrete_function(scans).graph
    kinds = [operation.type for operation in graph.get_operations()]
    # One before each convolution but the stem, and one at the end.
    expected = 0 if xla else 39
    assert kinds.count("FusedBatchNormV3") == expected
    assert kinds.count("FusedBatchNormGradV3") == expected


def fast_gradient_sign(model, images, labels, epsilon):
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = tf.reduce_sum(
            tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=False)
            )
        )
    sign = np.sign(tape.gradient(loss, images))
    return np.clip(images + epsilon * sign, 0.0, 1.0)


def test_batch_norm_sees_clean_and_adversarial_images_once(scans):
    trainer = make_densenet_trainer(
        adversarial_training=True, adversarial_epsilon=0.2
    )
    # On the moving averages from before the step.
    adversarial = fast_gradient_sign(trainer.model, **scans, epsilon=0.2)
    both = np.concatenate([scans["images"], adversarial]).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(both, [(0, 0), (1, 1), (1, 1), (0, 0)]), (3, 3), (1, 2)
    )
    kernel = trainer.model.get_layer("stem").kernel.numpy()
    features = np.einsum("bhwcij,ijcf->bhwf", windows, kernel)
    trainer.train_step(scans)
    batch_norm = trainer.model.get_layer("block_1_layer_1_batch_norm")
    np.testing.assert_allclose(
        batch_norm.moving_mean, 0.1 * features.mean((0, 1, 2)), atol=1e-6
    )
    np.testing.assert_allclose(
        batch_norm.moving_variance,
        0.9 + 0.1 * features.var((0, 1, 2)),
        rtol=1e-5,
    )


def epsilons_of_two_steps(scans, **keywords):
    """Linf distances of the crafted images before and after a step."""
    trainer = make_scans_trainer("A", adversarial_training=True, **keywords)
    found = []
    for _ in range(2):
        adversarial = trainer.craft(scans["images"], scans["labels"])
        change = np.abs(adversarial - scans["images"])
        found.append(change.max(axis=(1, 2, 3)))
        trainer.train_step(scans)
    return np.array(found)


def test_each_image_has_an_epsilon_of_its_own_in_each_step(scans):
    found = epsilons_of_two_steps(
        scans, adversarial_epsilon=0.2, adversarial_epsilon_min=0.1
    )
    assert (found > 0.1 - 1e-6).all() and (found < 0.2 + 1e-6).all()
    assert len(np.unique(found.round(5))) > found.size // 2
    again = epsilons_of_two_steps(
        scans, adversarial_epsilon=0.2, adversarial_epsilon_min=0.1
    )
    np.testing.assert_array_equal(found, again)


def test_without_a_smallest_epsilon_all_have_the_largest(scans):
    found = epsilons_of_two_steps(scans, adversarial_epsilon=0.2)
    np.testing.assert_allclose(found, 0.2, atol=1e-6)


def test_several_steps_are_projected_gradient_descent(scans):
    trainer = make_scans_trainer(
        "A",
        adversarial_training=True,
        adversarial_epsilon=0.2,
        adversarial_steps=3,
    )
    expected, clean = scans["images"], scans["images"].numpy()
    for _ in range(3):
        moved = fast_gradient_sign(
            trainer.model, expected, scans["labels"], epsilon=2.5 * 0.2 / 3
        )
        expected = tf.constant(np.clip(moved, clean - 0.2, clean + 0.2))
    found = trainer.craft(**scans)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_random_start_is_a_point_of_the_ball(scans):
    keywords = {
        "adversarial_epsilon": 0.2,
        "adversarial_start": "random",
        # So that the starts can be seen.
        "adversarial_step_size": 0.0,
    }
    first = epsilons_of_two_steps(scans, **keywords)
    assert (first > 0.15).all() and (first < 0.2 + 1e-6).all()
    # Another point for each image in each step.
    assert len(np.unique(first.round(6))) == first.size
    again = epsilons_of_two_steps(scans, **keywords)
    np.testing.assert_array_equal(first, again)


def test_training_begins_with_a_classifier(digits, batch):
    first = make_trainer(digits, seed=7).classifier()
    trainer = ClassifierTrainer(
        ClassifierConfig(learning_rate=0.0), digits.image_shape, 10, 10, first
    )
    trainer.train_step(batch)
    for mine, theirs in zip(
        trainer.classifier().keras_model.get_weights(),
        first.keras_model.get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_a_first_classifier_is_checked_before_anything_is_written(
    tmp_path, digits
):
    other = make_trainer(digits, classifier="A").classifier()
    with pytest.raises(
        ValueError, match="initial_classifier must be .* of target_c, with"
    ):
        train_classifier(
            ClassifierConfig(batch_size=16),
            digits,
            tmp_path / "classifier",
            LoopSettings(),
            initial=other,
            limit=16,
        )
    assert not list(tmp_path.iterdir())


def crafted(digits, batch, compile_function=None, **config):
    trainer = make_trainer(digits, adversarial_training=True, **config)
    craft = trainer.craft
    if compile_function is not None:
        craft = compile_function(craft)
    return craft(batch["images"], batch["labels"]).numpy()


def with_xla(function):
    return tf.function(function, jit_compile=True)


@pytest.mark.parametrize("compile_function", [tf.function, with_xla])
def test_steps_from_the_image_compile(digits, batch, compile_function):
    expected = crafted(digits, batch, adversarial_steps=2)
    found = crafted(digits, batch, compile_function, adversarial_steps=2)
    # Rounding may turn the sign of a gradient that is next to zero.
    assert (np.abs(found - expected) < 1e-5).mean() > 0.99


def test_random_starts_compile(digits, batch):
    config = {"adversarial_steps": 2, "adversarial_start": "random"}
    expected = crafted(digits, batch, **config)
    found = crafted(digits, batch, tf.function, **config)
    assert (np.abs(found - expected) < 1e-5).mean() > 0.99


def test_random_starts_compile_with_xla(digits, batch):
    # XLA draws other numbers from the same key, so that it is not compared
    # with what is not compiled.
    config = {"adversarial_start": "random", "adversarial_step_size": 0.0}
    found = crafted(digits, batch, with_xla, **config)
    change = np.abs(found - batch["images"])
    assert change.max() <= 0.3 + 1e-6
    assert (change.max((1, 2, 3)) > 0.25).all()
    again = crafted(digits, batch, with_xla, **config)
    np.testing.assert_array_equal(found, again)


def test_batch_norm_goes_on_from_a_checkpoint_bit_for_bit(tmp_path, scans):
    undisturbed = make_densenet_trainer(seed=3)
    undisturbed.train_step(scans)
    path = tf.train.Checkpoint(**undisturbed.trackables()).save(tmp_path / "x")
    undisturbed.train_step(scans)

    resumed = make_densenet_trainer(seed=3)
    checkpoint = tf.train.Checkpoint(**resumed.trackables())
    checkpoint.restore(path).assert_existing_objects_matched()
    resumed.train_step(scans)
    averages = [x for x in resumed.model.weights if "moving" in x.path]
    assert len(averages) == 2 * (36 + 2 + 1)
    for one, two in zip(
        undisturbed.model.weights, resumed.model.weights, strict=True
    ):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gives_a_float32_classifier(digits, batch, precision):
    trainer = make_trainer(digits, precision=precision)
    before = trainer.classifier().keras_model.get_weights()
    loss, _ = trainer.train_step(batch)
    assert np.isfinite(loss) and loss.dtype == tf.float32
    model = trainer.classifier().keras_model
    assert {x.dtype_policy.name for x in model.layers} == {"float32"}
    after = model.get_weights()
    assert any((x != y).any() for x, y in zip(before, after, strict=True))


def test_poisoned_weights_stop_the_training(tmp_path, digits):
    trainer = make_trainer(digits)
    for variable in trainer.model.trainable_variables:
        variable.assign(tf.fill(variable.shape, np.nan))
    loop = TrainingLoop(trainer, tmp_path, LoopSettings(checkpoint_every=2))
    with pytest.raises(NonFiniteLossError, match="not finite at step 1;"):
        loop.run(
            lambda start: digits.training_batches(
                "train", 8, seed=1, start_step=start, total_steps=4
            ),
            4,
        )
    assert not list(tmp_path.glob("ckpt*"))


def test_a_finished_classifier_is_loaded(tiny_run, digits):
    config = ClassifierConfig(epochs=12, batch_size=16, seed=1)
    losses = tiny_run.workdir / "classifier_checkpoints" / "losses.csv"
    before = losses.stat().st_mtime_ns
    classifier = train_classifier(
        config,
        digits,
        tiny_run.workdir / "classifier",
        LoopSettings(),
        limit=64,
    )
    assert losses.stat().st_mtime_ns == before
    assert classifier.name == "target_c"


def test_another_configuration_is_refused(tiny_run, digits):
    config = ClassifierConfig(epochs=12, batch_size=16, seed=1, shift=0)
    with pytest.raises(
        ValueError, match=r"shift was 2, now 0; training_images was 64, now 32"
    ):
        train_classifier(
            config,
            digits,
            tiny_run.workdir / "classifier",
            LoopSettings(),
            limit=32,
        )


def test_it_learns_64_digits(tiny_run):
    losses = read_losses(
        tiny_run.workdir / "classifier_checkpoints" / "losses.csv"
    )
    assert losses["cross_entropy"][-1] < 0.5 * losses["cross_entropy"][0]
    assert losses["error"][-1] < losses["error"][0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"classifier": "E"},
            "classifier must be one of A, B, C, D, densenet40, resnet18, "
            "got 'E'",
        ),
        ({"schedule": "x"}, "schedule must be one of"),
        ({"precision": "x"}, "precision must be one of"),
        ({"epochs": 0}, "epochs must be a positive integer"),
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"learning_rate": 11.0}, "learning_rate must be .* got 11.0"),
        ({"label_smoothing": 1.1}, "label_smoothing must be .* got 1.1"),
        ({"weight_decay": -1.0}, "weight_decay must be .* got -1.0"),
        ({"adversarial_epsilon": 1.1}, "adversarial_epsilon must be .* 1.1"),
        ({"adversarial_steps": 0}, "adversarial_steps must be a positive"),
        ({"adversarial_step_size": 2.0}, "adversarial_step_size must be .* 2"),
        (
            {"adversarial_start": "stored"},
            "adversarial_start must be one of clean, random, got 'stored'",
        ),
        (
            {"adversarial_epsilon_min": 0.4},
            r"adversarial_epsilon_min must be .*\[0.0, 0.3\], got 0.4",
        ),
    ],
)
def test_a_configuration_is_checked(config, message):
    with pytest.raises(ValueError, match=message):
        ClassifierConfig(**config)
