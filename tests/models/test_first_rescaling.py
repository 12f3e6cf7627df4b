"""Whether a model's own rescaling fits the range that it shall be given."""

import keras
import pytest

import models

BYTES = keras.layers.Rescaling(1 / 255, name="from_bytes")
SHAPE = (4, 4, 1)


def classifier(*first):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            *first,
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ],
        name="small",
    )


def nested(*first):
    pixels = keras.Input(SHAPE)
    return keras.Model(pixels, classifier(*first)(pixels), name="outer")


def put_in_front(model, value_range):
    purifier = models.Purifier.from_keras(
        models.generator("ape_gan_m", SHAPE, seed=0)
    )
    return purifier.in_front_of(model, value_range=value_range)


def load(model, value_range):
    return models.Classifier.from_keras(model, value_range=value_range)


@pytest.mark.parametrize("use", [put_in_front, load])
@pytest.mark.parametrize("make", [classifier, nested])
@pytest.mark.parametrize(
    ("scale", "value_range"),
    [(1 / 255, (0, 1)), (1 / 127.5, (-1, 1)), (255.0, (0, 255))],
)
def test_a_range_that_cannot_be_meant_is_refused(use, make, scale, value_range):
    model = make(keras.layers.Rescaling(scale))
    with pytest.raises(ValueError, match=r"value_range must be what .* is it"):
        use(model, value_range)


def test_the_message_names_the_range_that_is_likely():
    with pytest.raises(
        ValueError,
        match=r"what small was trained with, got \(0, 1\), .* first layer, "
        r"from_bytes \(times 0.003922\), .* span of 0.0039: is it "
        r"\(0, 255\)\?",
    ):
        load(classifier(BYTES), (0, 1))


@pytest.mark.parametrize("use", [put_in_front, load])
@pytest.mark.parametrize(
    ("first", "value_range"),
    [
        ([keras.layers.Rescaling(1 / 255)], (0, 255)),
        ([keras.layers.Rescaling(1 / 127.5, offset=-1)], (0, 255)),
        ([keras.layers.Rescaling(2.0, offset=-1)], (0, 1)),
        ([keras.layers.Rescaling(255.0)], (0, 1)),
        ([keras.layers.Rescaling([1 / 255])], (0, 1)),  # Not looked at.
        ([keras.layers.ReLU(), keras.layers.Rescaling(1 / 255)], (0, 1)),
        ([], (0, 255)),
    ],
)
def test_other_ranges_are_believed(use, first, value_range):
    use(classifier(*first), value_range)
