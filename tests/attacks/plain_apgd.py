"""APGD as its paper and code have it: one image at a time, and slow."""

from typing import NamedTuple

import numpy as np


class Run(NamedTuple):
    """What a run of APGD went through.

    Attributes:
        points: The iterates, the start first, each before any going back.
        losses: Of the iterates.
        sizes: Of the steps that were made.
        best: The iterate of the highest loss, or that which fools.
        clear: How many of the iterates come before any two losses that are
            compared are so close that rounding may decide.
    """

    points: list
    losses: list
    sizes: list
    best: np.ndarray
    clear: int


def project(point, image, epsilon, norm):
    change = point - image
    if norm == "linf":
        change = np.clip(change, -epsilon, epsilon)
    else:
        length = np.sqrt((change**2).sum())
        change = change * min(1.0, epsilon / max(length, 1e-30))
    return np.clip(image + change, 0.0, 1.0)


def steepest(gradient, norm):
    if norm == "linf":
        return np.sign(gradient)
    return gradient / max(np.sqrt((gradient**2).sum()), 1e-30)


def plain_apgd(loss_of, image, start, epsilon, norm, steps, is_fooled):
    """One run, Croce and Hein 2020, Algorithm 1, until it fools.

    Args:
        loss_of: From a point to its loss and gradient.
        image: Clean, in [0, 1].
        start: Where it begins.
        epsilon: Radius of the ball.
        norm: `linf` or `l2`.
        steps: At most.
        is_fooled: From a point to whether to end.
    """
    image = np.asarray(image, np.float64)
    point = project(np.asarray(start, np.float64), image, epsilon, norm)
    loss, gradient = loss_of(point)
    points, losses, sizes = [point], [loss], []
    best, best_loss, best_gradient = point, loss, gradient
    previous, size = point, 2.0 * epsilon
    window, since = max(int(0.22 * steps), 1), 0
    best_at_check, was_halved = loss, True
    clear = steps + 1
    for step in range(steps):
        if is_fooled(point):
            break
        sizes.append(size)
        weight = 1.0 if step == 0 else 0.75
        aim = point + size * steepest(gradient, norm)
        aim = project(aim, image, epsilon, norm)
        moved = point + weight * (aim - point)
        moved = moved + (1.0 - weight) * (point - previous)
        previous, point = point, project(moved, image, epsilon, norm)
        loss, gradient = loss_of(point)
        points.append(point)
        losses.append(loss)
        if min(abs(loss - losses[-2]), abs(loss - best_loss)) < 2e-6:
            clear = min(clear, len(points))
        if loss > best_loss:
            best, best_loss, best_gradient = point, loss, gradient
        since += 1
        if since == window:
            recent = losses[-window - 1 :]
            climbs = sum(
                b > a for a, b in zip(recent, recent[1:], strict=False)
            )
            halve = climbs <= 0.75 * window
            if not was_halved and best_at_check >= best_loss:
                halve = True
            if halve:
                size = size / 2.0
                point, gradient = best, best_gradient
            best_at_check, was_halved = best_loss, halve
            window = max(
                window - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
            )
            since = 0
    if is_fooled(points[-1]):
        best = points[-1]
    return Run(points, losses, sizes, best, min(clear, len(points)))


class Waves:
    """A network of one hidden layer of sines, in float64, by hand.

    Args:
        inputs: Values of an image.
        classes: Number of classes.
        lead: Added to the logit of class 0.
    """

    def __init__(self, inputs, classes, lead=0.0):
        generator = np.random.default_rng(5)
        self.first = generator.normal(size=(inputs, 8))
        self.second = generator.normal(size=(8, classes)) / 2.0
        self.biases = np.linspace(0.0, 0.3, classes)
        self.biases[0] += lead

    def logits(self, image):
        hidden = np.sin(np.reshape(image, -1) @ self.first)
        return hidden @ self.second + self.biases

    def pulled_back(self, image, weights):
        """The gradient of the sum of logits with these weights."""
        slopes = np.cos(np.reshape(image, -1) @ self.first)
        gradient = self.first @ (slopes * (self.second @ weights))
        return np.reshape(gradient, np.shape(image))

    def cross_entropy(self, image, label):
        """The loss and its gradient."""
        logits = self.logits(image)
        powers = np.exp(logits - logits.max())
        shares = powers / powers.sum()
        weights = shares - np.eye(len(logits))[label]
        return -np.log(shares[label]), self.pulled_back(image, weights)

    def targeted_dlr(self, image, label, target):
        """The loss and its gradient."""
        logits = self.logits(image)
        order = np.argsort(-logits)
        unit = np.eye(len(logits))
        lead = unit[target] - unit[label]
        spread = unit[order[0]] - 0.5 * (unit[order[2]] + unit[order[3]])
        above, below = lead @ logits, spread @ logits + 1e-12
        weights = lead / below - above / below**2 * spread
        return above / below, self.pulled_back(image, weights)
