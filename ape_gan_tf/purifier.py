"""`ape_gan_tf.Purifier`: a purifier that also loads by its pretrained name."""

from __future__ import annotations

import os
from collections.abc import Sequence

import models
from ape_gan_tf import pretrained_models


class Purifier(models.Purifier):
    """A function from images in [0, 1] to images of the same shape.

    `load` makes one; `predict` purifies images, and `in_front_of` puts it
    before a Keras classifier.
    """

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        image_shape: Sequence[int] | None = None,
        endpoint: str | None = None,
    ) -> Purifier:
        """Loads a Keras file, a SavedModel or a pretrained purifier.

        Args:
            path: What `models.Purifier.load` takes, or a pretrained name,
                such as "ape_gan_m". What exists on disk comes first.
            image_shape: Height, width and channels, where the model leaves
                them open.
            endpoint: The signature of a SavedModel.

        Returns:
            The purifier.

        Raises:
            FileNotFoundError: If there is no such model; where there is
                nothing at all, the message lists the pretrained names.
            ValueError: If it is damaged, or no purifier of such images.
        """
        name = os.fspath(path)
        if pretrained_models.is_name("purifier", name, "path"):
            if endpoint is not None:
                raise ValueError(
                    f"endpoint is for SavedModels, got {endpoint!r} for the "
                    f"pretrained {name}"
                )
            _, model = pretrained_models.load_network(name)
            return cls.from_keras(model, image_shape=image_shape)
        return super().load(path, image_shape=image_shape, endpoint=endpoint)
