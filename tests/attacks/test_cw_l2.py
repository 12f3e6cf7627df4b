"""CW-L2 against closed forms, a plain implementation, and Foolbox."""

import foolbox
import numpy as np
import pytest
import tensorflow as tf
from scipy import optimize

from attacks.base import Inputs
from attacks.carlini_wagner import box
from attacks.cw_l2 import CWL2, bisect


def near_grey(count=6):
    """Images that need a change of about 0.1, well inside the box."""
    generator = np.random.default_rng(0)
    noise = generator.random((count, 4, 5, 1), dtype=np.float32)
    return 0.3 + 0.4 * noise


def least_l2_untargeted(linear, images, labels):
    """The distance to the nearest of the label's hyperplanes."""
    logits = linear.logits(images)
    distances = []
    for row, label in zip(logits, labels, strict=True):
        others = [k for k in range(len(row)) if k != label]
        normals = linear.weights[:, others] - linear.weights[:, [label]]
        gaps = row[label] - row[others]
        distances.append((gaps / np.linalg.norm(normals, axis=0)).min())
    return np.array(distances)


def least_l2_targeted(linear, image, target):
    """The nearest point of a polyhedron in the box, by SciPy's SLSQP."""
    flat = image.ravel().astype(np.float64)
    others = [k for k in range(3) if k != target]
    normals = (linear.weights[:, [target]] - linear.weights[:, others]).T
    lead = linear.logits(image[None])[0]
    lead = lead[target] - lead[others]
    found = optimize.minimize(
        lambda change: 0.5 * change @ change,
        np.zeros_like(flat),
        jac=lambda change: change,
        bounds=np.stack([-flat, 1 - flat], -1),
        constraints={
            "type": "ineq",
            "fun": lambda change: normals @ change + lead,
            "jac": lambda change: normals,
        },
        method="SLSQP",
    )
    assert found.success
    return np.linalg.norm(found.x)


SEARCH = {"max_iterations": 200, "initial_const": 0.05}


def test_untargeted_it_comes_within_two_percent_of_the_least(
    linear, classifier
):
    images = near_grey()
    labels = linear.logits(images).argmax(-1)
    result = CWL2(target=None, **SEARCH)(classifier, images, labels)
    assert result.success.numpy().all()
    ratio = result.l2 / least_l2_untargeted(linear, images, labels)
    assert ratio.numpy().min() > 0.999 and ratio.numpy().max() < 1.02


def test_targeted_it_comes_within_two_percent_of_the_least(linear, classifier):
    images = near_grey()
    labels = linear.logits(images).argmax(-1)
    result = CWL2(**SEARCH)(classifier, images, labels)
    assert result.success.numpy().all()
    expected = [
        least_l2_targeted(linear, image, target)
        for image, target in zip(images, result.targets.numpy(), strict=True)
    ]
    ratio = result.l2 / np.array(expected)
    assert ratio.numpy().min() > 0.999 and ratio.numpy().max() < 1.02


class Plain:
    """The published algorithm for one image, in float64, slow and plain.

    Yields w, and the constant, its bounds and the best distance, before each
    gradient evaluation.
    """

    def __init__(self, linear, image, target, **params):
        self.weights = linear.weights.astype(np.float64)
        self.biases = linear.biases.astype(np.float64)
        self.image = image.ravel().astype(np.float64)
        self.target = target
        self.params = params
        self.best, self.adversarial = np.inf, image.ravel()

    def evaluate(self, w, constant, reference):
        x = 0.5 * np.tanh(w) + 0.5
        logits = x @ self.weights + self.biases
        others = [k for k in range(3) if k != self.target]
        other = max(others, key=lambda k: logits[k])
        gap = logits[other] - logits[self.target] + self.params["kappa"]
        gradient = 2 * (x - reference)
        if gap > 0:
            difference = self.weights[:, other] - self.weights[:, self.target]
            gradient = gradient + constant * difference
        distance = np.sum((x - reference) ** 2)
        if gap < 0 and distance < self.best:
            self.best, self.adversarial = distance, x
        loss = distance + constant * max(gap, 0)
        return loss, gap < 0, gradient * 0.5 * (1 - np.tanh(w) ** 2)

    def run(self):
        params = self.params
        origin = np.arctanh(0.999999 * (2 * self.image - 1))
        reference = 0.5 * np.tanh(origin) + 0.5
        start = origin
        constant, lower, upper = params["initial_const"], 0.0, 1e10
        interval = max(1, params["max_iterations"] // 10)
        for search in range(params["binary_search_steps"]):
            if search == params["binary_search_steps"] - 1 and search >= 9:
                constant = upper
            w, m, v = start, 0.0, 0.0
            is_found, previous = False, np.inf
            for step in range(params["max_iterations"]):
                yield w, constant, lower, upper, self.best
                before = self.best
                loss, is_success, gradient = self.evaluate(
                    w, constant, reference
                )
                if params["warm_start"]:
                    is_success = self.best < before
                    start = w if is_success else start
                is_found |= is_success
                if step % interval == 0:
                    if loss > 0.9999 * previous:
                        break
                    is_warm = params["warm_start"] and self.best < np.inf
                    previous = np.inf if is_warm and step == 0 else loss
                m = 0.9 * m + 0.1 * gradient
                v = 0.999 * v + 0.001 * gradient**2
                rate = np.sqrt(1 - 0.999 ** (step + 1)) / (
                    1 - 0.9 ** (step + 1)
                )
                w = w - params["learning_rate"] * rate * m / (np.sqrt(v) + 1e-8)
            if is_found:
                upper = min(upper, constant)
            else:
                lower = max(lower, constant)
            constant = (lower + upper) / 2 if upper < 1e9 else constant * 10


@pytest.mark.parametrize(
    "params",
    [
        {
            "binary_search_steps": 6,
            "max_iterations": 30,
            "warm_start": False,
        },
        {"binary_search_steps": 6, "max_iterations": 30, "warm_start": True},
        {
            "binary_search_steps": 10,
            "max_iterations": 9,
            "learning_rate": 0.2,
            "warm_start": False,
        },
        {
            "binary_search_steps": 10,
            "max_iterations": 9,
            "learning_rate": 0.2,
            "warm_start": True,
        },
    ],
)
def test_it_takes_the_course_of_a_plain_implementation(
    linear, classifier, params
):
    params = {
        "kappa": 0.25,
        "learning_rate": 0.02,
        "initial_const": 0.004,
        **params,
    }
    image = near_grey(1)
    label = int(linear.logits(image).argmax())
    target = (label + 1) % 3
    plain = Plain(linear, image, target, **params)
    attack = CWL2(**params)
    inputs = Inputs(
        tf.constant(image),
        tf.constant([label], tf.int64),
        tf.constant([target], tf.int64),
        tf.constant(image),
        tf.constant([0], tf.int64),
    )
    advance = tf.function(
        lambda state: attack.advance(classifier, inputs, state)
    )
    state = attack.begin(classifier, inputs)
    steps = 0
    for w, constant, lower, upper, best in plain.run():
        assert not state["done"].numpy()[0]
        np.testing.assert_allclose(
            np.ravel(state["variable"]), w, atol=1e-4, err_msg=f"step {steps}"
        )
        np.testing.assert_allclose(state["constant"], [constant], rtol=1e-5)
        np.testing.assert_allclose(state["lower"], [lower], rtol=1e-5)
        np.testing.assert_allclose(state["upper"], [upper], rtol=1e-5)
        np.testing.assert_allclose(state["best"], [best], rtol=1e-3)
        state = advance(state)
        steps += 1
    assert state["done"].numpy()[0]
    assert plain.best < np.inf  # Or there was little to compare.
    result = attack(classifier, image, [label], targets=[target])
    assert result.gradient_evaluations.numpy()[0] == steps
    np.testing.assert_allclose(
        np.ravel(result.adversarial), plain.adversarial, atol=1e-4
    )


def test_the_bracket_closes_on_the_smallest_constant_that_succeeds():
    needed = np.array([0.003, 0.5, 7.0, 1e12])
    constant = np.full(4, 0.001, np.float32)
    lower, upper = np.zeros(4, np.float32), np.full(4, 1e10, np.float32)
    for _ in range(25):
        found = constant >= needed
        new = bisect(constant, lower, upper, tf.constant(found))
        constant, lower, upper = (
            new[name].numpy() for name in ("constant", "lower", "upper")
        )
    np.testing.assert_allclose(upper[:3], needed[:3], rtol=1e-3)
    np.testing.assert_allclose(lower[:3], needed[:3], rtol=1e-3)
    assert upper[3] == np.float32(1e10)


def test_a_run_without_progress_is_aborted_for_its_own_image_only(
    linear, classifier
):
    # All black, w hardly moves the image at first: no progress.
    images = np.concatenate([np.zeros((1, 4, 5, 1), np.float32), near_grey(1)])
    labels = linear.logits(images).argmax(-1)
    attack = CWL2(max_iterations=50, binary_search_steps=3)
    both = attack(classifier, images, labels, indices=[0, 1])
    # The first two checks of each run, after 1 and 1 + 5 steps.
    assert both.gradient_evaluations.numpy()[0] == 3 * 6
    alone = attack(classifier, images[1:], labels[1:], indices=[1])
    assert (
        both.gradient_evaluations.numpy()[1]
        == alone.gradient_evaluations.numpy()[0]
        > 3 * 6
    )
    patient = CWL2(max_iterations=50, binary_search_steps=3, abort_early=False)
    result = patient(classifier, images, labels)
    np.testing.assert_array_equal(result.gradient_evaluations, 3 * 50)


def test_a_warm_start_comes_as_near_with_fewer_gradients(linear, classifier):
    images = near_grey()
    labels = linear.logits(images).argmax(-1)
    cold, warm = (
        CWL2(**{**SEARCH, "warm_start": is_warm})(classifier, images, labels)
        for is_warm in (False, True)
    )
    assert warm.success.numpy().all() and cold.success.numpy().all()
    assert warm.l2.numpy().mean() <= 1.01 * cold.l2.numpy().mean()
    gradients = [x.gradient_evaluations.numpy().mean() for x in (warm, cold)]
    assert gradients[0] < 0.75 * gradients[1]


def test_more_distance_buys_more_margin(linear, classifier):
    images = near_grey()
    labels = linear.logits(images).argmax(-1)
    norms = []
    for kappa in (0.0, 2.0):
        result = CWL2(kappa=kappa, **SEARCH)(classifier, images, labels)
        logits = linear.logits(result.adversarial)
        rows, targets = np.arange(len(images)), result.targets.numpy()
        own = logits[rows, targets].copy()
        logits[rows, targets] = -np.inf
        lead = own - logits.max(-1)
        assert lead.min() > kappa and lead.max() < kappa + 0.2
        norms.append(result.l2.numpy())
    assert (norms[1] > norms[0]).all()


def test_the_image_that_was_tested_is_returned(linear, classifier, batch):
    # Black and white parts saturate: there, rounding might lose success.
    images, _ = batch
    images = np.round(images)
    labels = linear.logits(images).argmax(-1)
    attack = CWL2(
        max_iterations=60,
        binary_search_steps=4,
        learning_rate=0.2,
        initial_const=1.0,
        abort_early=False,
    )
    result = attack(classifier, images, labels)
    assert result.success.numpy().all()
    clean, _ = box(tf.atanh(0.999999 * (2.0 * images - 1.0)))
    # What was not moved is where the round trip through w has put it.
    kept = np.abs(result.adversarial.numpy() - images) < 1e-6
    assert kept.any()
    np.testing.assert_allclose(
        result.adversarial.numpy()[kept], clean.numpy()[kept], atol=1e-6
    )


@pytest.mark.parametrize("is_targeted", [False, True])
def test_it_is_as_good_as_foolbox(network, is_targeted):
    generator = np.random.default_rng(4)
    images = generator.random((10, 6, 6, 1), dtype=np.float32)
    logits = network(images).numpy()
    labels, targets = logits.argmax(-1), logits.argmin(-1)
    params = {"binary_search_steps": 4, "initial_const": 0.5}
    attack = CWL2(target=None, max_iterations=60, learning_rate=0.03, **params)
    ours = attack(
        network, images, labels, targets=targets if is_targeted else None
    )
    criterion = (
        foolbox.criteria.TargetedMisclassification(tf.constant(targets))
        if is_targeted
        else foolbox.criteria.Misclassification(tf.constant(labels))
    )
    theirs = foolbox.attacks.L2CarliniWagnerAttack(
        steps=60, stepsize=0.03, **params
    )
    _, adversarial, is_success = theirs(
        foolbox.TensorFlowModel(network, bounds=(0, 1)),
        tf.constant(images),
        criterion,
        epsilons=None,
    )
    assert is_success.numpy().all()
    np.testing.assert_array_equal(ours.success, is_success)
    changes = (adversarial - images).numpy().reshape(10, -1)
    norms = np.linalg.norm(changes, axis=1)
    assert ours.l2.numpy().mean() <= 1.02 * norms.mean()
