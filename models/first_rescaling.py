"""A Keras model's first layer, beside the range that its pixels shall have.

A wrong range is not seen in any shape, and answers are only worse. Where a
model begins by rescaling pixels, though, it says which range it was made for.
"""

import keras

# What networks are given spans from about one, [0, 1], to 255.
LEAST_SPAN, MOST_SPAN = 0.1, 1000.0


def check_value_range(model, value_range):
    """Checks that a model's own rescaling makes sense of a range.

    Args:
        model: A Keras model.
        value_range: The lowest and highest value that it shall be given.

    Raises:
        ValueError: Its first layer is a `keras.layers.Rescaling` after which
            these pixels span less than 0.1 or more than 1,000.
    """
    layer = _first_layer(model)
    # A scale may be one a channel.
    if not isinstance(layer, keras.layers.Rescaling) or not isinstance(
        layer.scale, int | float
    ):
        return
    low, high = value_range
    span = (high - low) * abs(layer.scale)
    if not LEAST_SPAN <= span <= MOST_SPAN:
        likely = "(0, 255)" if span < LEAST_SPAN else "(0, 1)"
        raise ValueError(
            f"value_range must be what {model.name} was trained with, got "
            f"({low:g}, {high:g}), of which its first layer, "
            f"{layer.name} (times {layer.scale:.4g}), makes a span of "
            f"{span:.2g}: is it {likely}?"
        )


def _first_layer(model):
    layers = getattr(model, "layers", None)
    if layers is None:
        return model
    for layer in layers:
        if not isinstance(
            layer, keras.layers.InputLayer | keras.layers.Identity
        ):
            return _first_layer(layer)
    return None
