"""FAB-T in float64, one image at a time: slow, and plain enough to check."""

from collections.abc import Callable, Sequence

import numpy as np


def plain_fab(
    logits_of: Callable[[np.ndarray], np.ndarray],
    gradients_of: Callable[[np.ndarray], np.ndarray],
    image: np.ndarray,
    label: int,
    targets: Sequence[int],
    norm: str,
    steps: int = 100,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> np.ndarray | None:
    """Attacks one image, one target after another, from the image each time.

    Args:
        logits_of: From an image `[D]` to its logits `[K]`.
        gradients_of: From an image `[D]` to their Jacobian `[K, D]`.
        image: `[D]` in [0, 1].
        label: Its class.
        targets: The classes to try, in their order.
        norm: `linf` or `l2`.
        steps: Steps for each target.
        alpha_max: The largest weight of the image.
        eta: How far to go beyond a projection.
        beta: How much of the perturbation is left after success.

    Returns:
        The nearest image of another class; None where none was found.
    """
    order = np.inf if norm == "linf" else 2
    project = plain_linf if norm == "linf" else plain_l2
    image = np.asarray(image, np.float64)
    best, shortest = None, np.inf
    for target in targets:
        x = image
        for _ in range(steps):
            logits, jacobian = logits_of(x), gradients_of(x)
            w = jacobian[target] - jacobian[label]
            offset = w @ x - (logits[target] - logits[label])
            from_x = project(x, w, offset) - x
            from_image = project(image, w, offset) - image
            d1 = max(np.linalg.norm(from_x, order), 1e-8)
            d2 = max(np.linalg.norm(from_image, order), 1e-8)
            alpha = min(d1 / (d1 + d2), alpha_max)
            x = (1 - alpha) * (x + eta * from_x) + alpha * (
                image + eta * from_image
            )
            x = np.clip(x, 0.0, 1.0)
            if logits_of(x).argmax() == label:
                continue
            length = np.linalg.norm(x - image, order)
            if length < shortest:
                best, shortest = x, length
            x = image + beta * (x - image)
    return best


def plain_linf(
    point: np.ndarray, normal: np.ndarray, offset: float
) -> np.ndarray:
    """The nearest point in Linf of a hyperplane in the box, by bisection."""
    way = -np.sign(normal * (normal @ point - offset))
    return _at_the_hyperplane(
        lambda m: np.clip(point + m * way, 0.0, 1.0), 1.0, normal, offset
    )


def plain_l2(
    point: np.ndarray, normal: np.ndarray, offset: float
) -> np.ndarray:
    """The nearest point in L2 of a hyperplane in the box, by bisection."""
    way = -normal * np.sign(normal @ point - offset)
    parts = np.abs(normal[normal != 0.0])
    # With this all values are at their bounds.
    largest = 1.0 / parts.min() if parts.size else 0.0
    return _at_the_hyperplane(
        lambda m: np.clip(point + m * way, 0.0, 1.0), largest, normal, offset
    )


def _at_the_hyperplane(
    point_of: Callable[[float], np.ndarray],
    largest: float,
    normal: np.ndarray,
    offset: float,
) -> np.ndarray:
    """The point of the least multiplier that is on the other side."""
    side = np.sign(normal @ point_of(0.0) - offset)
    low, high = 0.0, largest
    for _ in range(70):
        middle = 0.5 * (low + high)
        if side * (normal @ point_of(middle) - offset) > 0.0:
            low = middle
        else:
            high = middle
    return point_of(high)
