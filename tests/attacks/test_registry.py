"""Attacks by name, their parameters as text, and what holds for each."""

from typing import Any, NamedTuple

import keras
import numpy as np
import pytest

import attacks
import models


class Case(NamedTuple):
    """An attack with parameters that make it short."""

    name: str
    params: dict[str, Any] = {}


CASES = [
    Case("fgsm", {"epsilon": 0.2}),
    Case("fgsm", {"epsilon": 0.3, "epsilon_min": 0.05}),
    Case("fgsm", {"epsilon": 1.0}),
    Case("iterative_gradient_sign", {"epsilon": 0.2, "steps": 3}),
    Case("iterative_gradient_sign", {"epsilon": 0.1, "alpha": 0.4}),
    Case("pgd", {"epsilon": 0.2, "alpha": 0.1, "steps": 3}),
    Case("apgd_ce", {"epsilon": 0.2, "steps": 5}),
    Case("apgd_t", {"epsilon": 0.1, "steps": 5, "target_classes": 2}),
    Case("square", {"epsilon": 0.2, "queries": 20}),
    # So large that the first of the four is enough, in a few steps.
    Case("auto_attack", {"epsilon": 0.9}),
]
# Bound to no ball; what they promise is in tests of their own.
OF_SMALLEST_NORM = {
    "deepfool",
    "fab_t",
    "lbfgs",
    "jsma",
    "cw_l0",
    "cw_l2",
    "cw_linf",
}
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def network():
    """A small curved network, of classes enough for APGD-T."""
    inputs = keras.Input((6, 6, 1))
    features = keras.layers.Conv2D(
        4,
        3,
        activation="tanh",
        kernel_initializer=keras.initializers.GlorotUniform(1),
    )(inputs)
    outputs = keras.layers.Dense(
        5, kernel_initializer=keras.initializers.GlorotUniform(2)
    )(keras.layers.Flatten()(features))
    return models.Classifier.from_keras(keras.Model(inputs, outputs))


def test_every_attack_has_a_case():
    bounded = {case.name for case in CASES}
    assert bounded | OF_SMALLEST_NORM == set(attacks.ATTACKS)
    for name in attacks.ATTACKS:
        assert attacks.has_param(name, "epsilon") == (name in bounded)


@each_case
def test_the_ball_and_the_box_are_never_left(case, network, make_batch):
    images, labels = make_batch(network.image_shape, 16)
    indices = np.arange(16)
    attack = attacks.get(case.name, **case.params)
    for starts in (None, 1.0 - images):
        result = attack(network, images, labels, starts=starts, indices=indices)
        adversarial = result.adversarial.numpy()
        assert adversarial.min() >= 0.0 and adversarial.max() <= 1.0
        distance = np.abs(adversarial - images).max((1, 2, 3))
        assert (distance <= attack.epsilons(indices).numpy() + 1e-6).all()


@each_case
def test_results_do_not_depend_on_the_batch_size(case, network, make_batch):
    images, labels = make_batch(network.image_shape)
    results = [
        attacks.get(case.name, **case.params, batch_size=batch_size)(
            network, images, labels
        )
        for batch_size in (256, 4, 1)
    ]
    for other in results[1:]:
        for expected, found in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(found, expected)


@each_case
def test_no_images_give_no_results(case, network):
    images = np.zeros((0, *network.image_shape), np.float32)
    result = attacks.get(case.name, **case.params)(network, images, [])
    assert result.adversarial.shape == images.shape
    assert [len(field) for field in result] == [0] * 7


@each_case
def test_an_attack_works_on_its_loss(case, network, make_batch):
    images, labels = make_batch(network.image_shape)
    attack = attacks.get(case.name, **case.params)

    def losses(x):
        logits = network.predict(x)
        top = logits.max(-1)
        total = np.log(np.exp(logits - top[:, None]).sum(-1)) + top
        return total - logits[np.arange(len(labels)), labels]

    adversarial = attack(network, images, labels).adversarial.numpy()
    assert losses(adversarial).mean() > losses(images).mean()


def test_an_attack_is_found_by_name():
    attack = attacks.get("fgsm", epsilon=0.25, epsilon_min=0.1, seed=3)
    assert attack == attacks.FGSM(epsilon=0.25, epsilon_min=0.1, seed=3)
    assert attack.params == {"epsilon": 0.25, "epsilon_min": 0.1}


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("fgms", {}, "attack must be .*fgsm, iterative.*mean 'fgsm'"),
        (
            "fgsm",
            {"epsilom": 0.3},
            "parameter of fgsm must be one of .*epsilon.*mean 'epsilon'",
        ),
        ("fgsm", {"steps": 3}, "parameter of fgsm must be .* got 'steps'"),
        ("fgsm", {"name": "x"}, "parameter of fgsm must be .* got 'name'"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(name, params, message):
    with pytest.raises(ValueError, match=message):
        attacks.get(name, **params)


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("", {}),
        ("epsilon=0.3", {"epsilon": 0.3}),
        ("epsilon=8/255,steps=2", {"epsilon": 8 / 255, "steps": 2}),
        (" epsilon = 1e-3 , ", {"epsilon": 0.001}),
        ("a=true,b=False,c=None", {"a": True, "b": False, "c": None}),
        ("norm=linf,ratio=1/0", {"norm": "linf", "ratio": "1/0"}),
    ],
)
def test_parameters_are_read_from_text(text, params):
    found = attacks.parse_params(text)
    assert found == params
    assert [type(x) for x in found.values()] == [
        type(x) for x in params.values()
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epsilon", "attack_params must look like name=value.*'epsilon'"),
        ("epsilon=", "got 'epsilon='"),
        ("=0.3", "got '=0.3'"),
        ("epsilon=1,epsilon=2", "'epsilon' more than once"),
    ],
)
def test_text_that_says_no_parameters_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        attacks.parse_params(text)
