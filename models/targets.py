"""The target classifiers: Table 5 of the paper, and two for CIFAR-10."""

import keras

from data import checks
from models import dense_net, layers, resnet, shapes

TARGETS = ("A", "B", "C", "D", "densenet40", "resnet18")

# The smallest side that leaves at least one pixel behind every layer.
_SMALLEST_SIDE = {
    "A": 6,
    "B": 16,
    "C": 27,
    "D": 16,
    "densenet40": 4,
    "resnet18": 8,
}


def target(
    name: str,
    image_shape: tuple[int, int, int],
    num_classes: int,
    *,
    seed: int | None = None,
) -> keras.Model:
    """Builds a target classifier of the paper, without its softmax.

    A to D are those of Table 5, `densenet40` and `resnet18` the others of
    CIFAR-10: see `dense_net.densenet40` and `resnet.resnet18`.

    A, B and C are the paper's for MNIST, D for CIFAR-10; C is CleverHans's
    basic CNN. Where Table 5 is silent we chose: padding VALID in A, B and
    D, and SAME, VALID, VALID in C as CleverHans has it; max pooling 2x2;
    no dropout but the two printed in A; Glorot uniform initial weights and
    biases of zero. The softmax of the table is left to the loss, since
    log(softmax) in float32 saturates and masks gradients from attacks.

    Args:
        name: One of `TARGETS`.
        image_shape: Height, width and channels. Sides must be at least 6
            for A, 16 for B and D, 27 for C, 4 for `densenet40`, 8 for
            `resnet18`.
        num_classes: Number of classes, at least 2.
        seed: Makes the initial weights and the dropout reproducible.

    Returns:
        A functional model named `target_` and the name in lower case, from
        float32 images `[B, H, W, C]` in [0, 1], the input "images", to
        float32 logits `[B, num_classes]`.

    Raises:
        ValueError: If an argument is unknown or does not fit.
    """
    checks.check_one_of(name, TARGETS, "name")
    checks.check_positive_integer(num_classes, "num_classes")
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    image_shape = _check_image_shape(name, image_shape)

    images = keras.Input(image_shape, name="images")
    logits = _NETWORKS[name](images, layers.Seeds(seed), num_classes)
    return keras.Model(images, logits, name=f"target_{name.lower()}")


def _layers_a(seeds, num_classes):
    return [
        _conv(seeds, "conv_1", 32, 3),
        _conv(seeds, "conv_2", 64, 3),
        keras.layers.MaxPooling2D(name="pool_1"),
        keras.layers.Dropout(0.25, seed=seeds.take(), name="dropout_1"),
        keras.layers.Flatten(name="flatten"),
        _dense(seeds, "fc_1", 128),
        keras.layers.Dropout(0.5, seed=seeds.take(), name="dropout_2"),
        _logits(seeds, num_classes),
    ]


def _layers_b(seeds, num_classes):
    return _layers_vgg(seeds, (32, 64), 200, num_classes)


def _layers_c(seeds, num_classes):
    return [
        _conv(seeds, "conv_1", 64, 8, strides=2, padding="same"),
        _conv(seeds, "conv_2", 128, 6, strides=2),
        _conv(seeds, "conv_3", 128, 5),
        keras.layers.Flatten(name="flatten"),
        _logits(seeds, num_classes),
    ]


def _layers_d(seeds, num_classes):
    return _layers_vgg(seeds, (64, 128), 256, num_classes)


def _layers_vgg(seeds, filters, units, num_classes):
    """The common form of B and D."""
    first, second = filters
    return [
        _conv(seeds, "conv_1", first, 3),
        _conv(seeds, "conv_2", first, 3),
        keras.layers.MaxPooling2D(name="pool_1"),
        _conv(seeds, "conv_3", second, 3),
        _conv(seeds, "conv_4", second, 3),
        keras.layers.MaxPooling2D(name="pool_2"),
        keras.layers.Flatten(name="flatten"),
        _dense(seeds, "fc_1", units),
        _dense(seeds, "fc_2", units),
        _logits(seeds, num_classes),
    ]


def _in_a_row(make_layers):
    """Makes a network of a function that lists layers."""

    def network(features, seeds, num_classes):
        for layer in make_layers(seeds, num_classes):
            features = layer(features)
        return features

    return network


_NETWORKS = {
    "A": _in_a_row(_layers_a),
    "B": _in_a_row(_layers_b),
    "C": _in_a_row(_layers_c),
    "D": _in_a_row(_layers_d),
    "densenet40": dense_net.densenet40,
    "resnet18": resnet.resnet18,
}


def _conv(seeds, name, filters, kernel_size, strides=1, padding="valid"):
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        strides=strides,
        padding=padding,
        activation="relu",
        kernel_initializer=keras.initializers.GlorotUniform(seeds.take()),
        name=name,
    )


def _dense(seeds, name, units):
    return keras.layers.Dense(
        units,
        activation="relu",
        kernel_initializer=keras.initializers.GlorotUniform(seeds.take()),
        name=name,
    )


def _logits(seeds, num_classes):
    return layers.logits(
        num_classes, keras.initializers.GlorotUniform(seeds.take())
    )


def _check_image_shape(name, image_shape):
    shape = shapes.check_image_shape(image_shape)
    smallest = _SMALLEST_SIDE[name]
    if min(shape[:2]) < smallest:
        raise ValueError(
            f"image_shape must be at least {smallest}x{smallest} for target "
            f"{name}, got {shape[0]}x{shape[1]}"
        )
    return shape
