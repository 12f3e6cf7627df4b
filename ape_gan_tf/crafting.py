"""Crafts adversarial sets and writes them to disk as they grow."""

from __future__ import annotations

from pathlib import Path

import attacks
import data
import models
from ape_gan_tf.progress import Progress

THREAT_OF_PURIFIER = {False: "oblivious", True: "white_box"}


def craft(
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    output: Path,
    *,
    limit: int | None = None,
    shard_size: int | None = None,
) -> data.AdversarialSet:
    """Attacks a split of a dataset, shard by shard, and writes the set.

    Memory does not grow with the set. Shards that are there are verified and
    kept, so a killed run goes on where it stopped, to the same bytes.

    Args:
        attack: From `attacks.get`.
        classifier: Whom to fool; one behind a purifier gives a white-box set.
        dataset: From `data.load`.
        split: `train`, `validation` or `test`.
        output: The set's path without a suffix.
        limit: Only the first `limit` images of the split.
        shard_size: Images a shard; None chooses by their size.

    Returns:
        The whole set, verified.

    Raises:
        ValueError: There is something else at `output`, or an argument does
            not fit.
    """
    check_classes(classifier, dataset)
    count = dataset.count(split)
    count = count if limit is None else min(limit, count)
    writer = data.AdversarialSetWriter(
        output,
        _provenance(attack, classifier, dataset, split),
        count=count,
        image_shape=dataset.image_shape,
        shard_size=shard_size,
    )
    missing = writer.missing()
    left = sum(shard.stop - shard.start for shard in missing)
    if left:
        with Progress(
            f"crafting {attack.name}", count, "images", count - left
        ) as progress:
            for shard in missing:
                _craft_shard(
                    attack, classifier, dataset, split, writer, shard, progress
                )
    return data.AdversarialSet.open(output)


def check_classes(classifier: models.Classifier, dataset: data.Dataset) -> None:
    """Raises ValueError unless the labels are those of the classifier."""
    if classifier.num_classes != dataset.num_classes:
        raise ValueError(
            f"classifier {classifier.name} has {classifier.num_classes} "
            f"classes, dataset {dataset.name} has {dataset.num_classes}"
        )


def _provenance(
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
) -> data.Provenance:
    purifier = classifier.purifier
    base = classifier.base or classifier
    return data.Provenance(
        attack=attack.name,
        params=attack.params,
        threat_model=THREAT_OF_PURIFIER[purifier is not None],
        seed=attack.seed,
        dataset=dataset.name,
        split=split,
        classifier_fingerprint=base.fingerprint,
        purifier_fingerprint="" if purifier is None else purifier.fingerprint,
    )


def _craft_shard(
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    writer: data.AdversarialSetWriter,
    shard: data.Shard,
    progress: Progress,
) -> None:
    size = attack.batch_size or attacks.default_batch_size(dataset.image_shape)
    with writer.shard(shard) as sink:
        for batch in dataset.batches(
            split, size, start=shard.start, limit=shard.stop
        ):
            images, labels, index = (
                batch[name] for name in ("images", "labels", "index")
            )
            result = attack(classifier, images, labels, indices=index)
            sink.append(
                images=images.numpy(),
                adversarial=result.adversarial.numpy(),
                labels=labels.numpy(),
                index=index.numpy(),
                target=result.targets.numpy(),
                epsilon=attack.epsilons(index).numpy(),
                success=result.success.numpy(),
                l0=result.l0.numpy(),
                l2=result.l2.numpy(),
                linf=result.linf.numpy(),
                gradient_evaluations=result.gradient_evaluations.numpy(),
            )
            progress.update(len(index))
