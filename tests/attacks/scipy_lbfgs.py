"""The L-BFGS attack on one image at a time, with SciPy's solver in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from scipy.optimize import fmin_l_bfgs_b


def scipy_lbfgs_on(
    classifier: Any, images: np.ndarray, targets: np.ndarray, **params: Any
) -> np.ndarray:
    """Runs `scipy_lbfgs` on one image after the other, targeted.

    Args:
        classifier: From a batch of images to logits.
        images: float32 `[B, H, W, C]` in [0, 1].
        targets: Integers `[B]`.
        **params: See `scipy_lbfgs`.

    Returns:
        float32 `[B, H, W, C]`.
    """

    @tf.function(reduce_retracing=True)
    def evaluate(images: tf.Tensor, targets: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(images)
            logits = classifier(images)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(
                targets, logits
            )
        return [logits, loss, tape.gradient(loss, images)]

    def attack(image: np.ndarray, target: int) -> np.ndarray:
        def at(image: np.ndarray) -> list[np.ndarray]:
            parts = evaluate(tf.constant(image[None]), tf.constant([target]))
            return [part.numpy()[0] for part in parts]

        return scipy_lbfgs(
            lambda image: at(image)[1:],
            lambda image: np.argmax(at(image)[0]) == target,
            image,
            **params,
        )

    pairs = zip(images, targets, strict=True)
    return np.stack([attack(image, int(target)) for image, target in pairs])


def scipy_lbfgs(
    loss_and_gradient: Callable[[np.ndarray], tuple[float, np.ndarray]],
    is_adversarial: Callable[[np.ndarray], bool],
    image: np.ndarray,
    *,
    iterations: int = 150,
    search_steps: int = 10,
    initial_constant: float = 0.01,
    memory: int = 10,
    tolerance: float = 2e-9,
) -> np.ndarray:
    """Minimises ||x' - x||^2 + c * loss(x') for one c after the other.

    Each minimisation begins at the clean image. The constants are those of
    `attacks.lbfgs.LBFGS`.

    Args:
        loss_and_gradient: From a float32 image to its loss and the gradient.
        is_adversarial: Whether a float32 image is a success.
        image: float32, of any shape, in [0, 1].
        iterations: The most steps of one minimisation.
        search_steps: The most minimisations.
        initial_constant: The first c.
        memory: Of the approximation of the Hessian.
        tolerance: A step that gains less, of the objective, is the last.

    Returns:
        The nearest adversarial minimiser, or the image if none is one.
    """
    lower, upper, constant = 0.0, np.inf, initial_constant
    nearest, least = image, np.inf
    for _ in range(search_steps):
        found = _minimise(
            loss_and_gradient, image, constant, memory, iterations, tolerance
        )
        if is_adversarial(found):
            upper = constant
            distance = np.linalg.norm(found - image)
            if distance < least:
                nearest, least = found, distance
        else:
            lower = constant
        if upper <= 1.02 * lower:
            break
        constant = _following(lower, upper, constant)
    return nearest


def _following(lower: float, upper: float, constant: float) -> float:
    if np.isinf(upper):
        return 10.0 * constant
    return 0.1 * constant if lower == 0.0 else np.sqrt(lower * upper)


def _minimise(
    loss_and_gradient, image, constant, memory, iterations, tolerance
):
    clean = np.float64(image).reshape(-1)

    def objective(flat):
        loss, gradient = loss_and_gradient(
            np.float32(flat).reshape(image.shape)
        )
        change = flat - clean
        weighted = constant * np.float64(gradient).reshape(-1)
        value = change @ change + constant * float(loss)
        return value, 2.0 * change + weighted

    minimiser, _, _ = fmin_l_bfgs_b(
        objective,
        clean,
        bounds=[(0.0, 1.0)] * clean.size,
        m=memory,
        maxiter=iterations,
        factr=tolerance / np.finfo(float).eps,
    )
    return np.clip(np.float32(minimiser), 0.0, 1.0).reshape(image.shape)
