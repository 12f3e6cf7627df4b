"""Crafts adversarial sets and writes them to disk as they grow."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import attacks
import data
import models
from ape_gan_tf.progress import Progress

SHARD_OF_SLOW_ATTACKS = 1000
ROWS_AT_A_TIME = 256
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
    earlier: data.AdversarialSet | None = None,
    starts: data.AdversarialSet | None = None,
    extra: Mapping[str, str] | None = None,
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
        earlier: A set of the same attack, classifier and seed with a smaller
            limit: its images are taken over, since what becomes of an image
            does not depend on the others.
        starts: A set of the same images, where the search begins.
        extra: Names and values to be written among the attack's parameters.

    Returns:
        The whole set, verified.

    Raises:
        ValueError: There is something else at `output`, `earlier` is a set of
            something else, `starts` has fewer images, or an argument does not
            fit.
    """
    refuse_all_targets(attack, "attack")
    writer = _writer(
        attack,
        classifier,
        dataset,
        split,
        output,
        limit,
        shard_size,
        **(extra or {}),
    )
    if starts is not None:
        _check_starts(starts, writer)
    if earlier is not None:
        _check_earlier(earlier, writer.provenance)
        _take_over(writer, earlier)
    _write_missing([writer], attack, classifier, dataset, split, starts)
    return data.AdversarialSet.open(output)


def craft_all_targets(
    attack: attacks.TargetedAttack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    output: Path,
    *,
    limit: int | None = None,
    shard_size: int | None = None,
) -> dict[str, data.AdversarialSet]:
    """Attacks each image once for each wrong class; writes three sets.

    Args:
        attack: A targeted attack with `target="all"`.
        classifier: See `craft`; so are the other arguments.
        dataset: See `craft`.
        split: See `craft`.
        output: The sets are this name with `_best`, `_average`, `_worst`.
        limit: See `craft`.
        shard_size: See `craft`.

    Returns:
        The sets by `best`, `average`, `worst` (see `attacks.AllTargets`).

    Raises:
        ValueError: See `craft`.
    """
    outputs = {
        case: output.with_name(f"{output.name}_{case}")
        for case in attacks.AllTargets._fields
    }
    writers = [
        _writer(
            attack,
            classifier,
            dataset,
            split,
            path,
            limit,
            shard_size,
            case=case,
        )
        for case, path in outputs.items()
    ]
    _write_missing(writers, attack, classifier, dataset, split)
    return {
        case: data.AdversarialSet.open(path) for case, path in outputs.items()
    }


def _writer(
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    output: Path,
    limit: int | None,
    shard_size: int | None,
    **extra: str,
) -> data.AdversarialSetWriter:
    check_classes(classifier, dataset)
    count = dataset.count(split)
    if shard_size is None and not isinstance(attack, attacks.BatchAttack):
        # They are slow, and a killed run begins its shard again.
        shard_size = data.default_shard_size(
            dataset.image_shape, at_most=SHARD_OF_SLOW_ATTACKS
        )
    return data.AdversarialSetWriter(
        output,
        provenance(attack, classifier, dataset, split, **extra),
        count=count if limit is None else min(limit, count),
        image_shape=dataset.image_shape,
        shard_size=shard_size,
    )


def _check_earlier(
    earlier: data.AdversarialSet, wanted: data.Provenance
) -> None:
    found = dataclasses.replace(
        earlier.provenance, package_versions=wanted.package_versions
    )
    if found != wanted:
        raise ValueError(
            f"earlier must be a set of {wanted}, got {earlier.path} of {found}"
        )


def _check_starts(
    starts: data.AdversarialSet, writer: data.AdversarialSetWriter
) -> None:
    wanted = writer.provenance
    found = starts.provenance
    is_same = (found.dataset, found.split) == (wanted.dataset, wanted.split)
    if not is_same or starts.count < writer.count:
        raise ValueError(
            f"starts must be a set of {writer.count} images of "
            f"{wanted.dataset}, {wanted.split}, got {starts.path} of "
            f"{starts.count} images of {found.dataset}, {found.split}"
        )


def _take_over(
    writer: data.AdversarialSetWriter, earlier: data.AdversarialSet
) -> None:
    """Writes the shards that lie in the earlier set as a whole."""
    for shard in writer.missing():
        if shard.stop > earlier.count:
            return
        rows = earlier.batches(
            ROWS_AT_A_TIME, start=shard.start, limit=shard.stop
        )
        with writer.shard(shard) as sink:
            for batch in rows:
                sink.append(**{k: v.numpy() for k, v in batch.items()})


def _write_missing(
    writers: Sequence[data.AdversarialSetWriter],
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    starts: data.AdversarialSet | None = None,
) -> None:
    """Crafts the shards that one of the sets lacks."""
    lacking = [set(writer.missing()) for writer in writers]
    shards = sorted(set().union(*lacking), key=lambda shard: shard.start)
    left = sum(shard.stop - shard.start for shard in shards)
    if not left:
        return
    count = writers[0].count
    with Progress(
        f"crafting {attack.name}", count, "images", count - left
    ) as progress:
        for shard in shards:
            with contextlib.ExitStack() as stack:
                sinks = [
                    stack.enter_context(writer.shard(shard))
                    if shard in missing
                    else None
                    for writer, missing in zip(writers, lacking, strict=True)
                ]
                _craft_shard(
                    sinks,
                    attack,
                    classifier,
                    _batches(attack, dataset, split, shard, starts),
                    progress,
                )


def refuse_all_targets(attack: attacks.Attack, argument: str) -> None:
    """Raises ValueError where one attack would make three results."""
    if attacks.wants_all_targets(attack):
        raise ValueError(
            f"{argument} must choose one target for each image, got "
            f"{attack.name} with target=all, which only the command craft, "
            "craft_all_targets and attacks.attack_all_targets take"
        )


def check_classes(classifier: models.Classifier, dataset: data.Dataset) -> None:
    """Raises ValueError unless the labels are those of the classifier."""
    if classifier.num_classes != dataset.num_classes:
        raise ValueError(
            f"classifier {classifier.name} has {classifier.num_classes} "
            f"classes, dataset {dataset.name} has {dataset.num_classes}"
        )


def provenance(
    attack: attacks.Attack,
    classifier: models.Classifier,
    dataset: data.Dataset,
    split: str,
    **extra: str,
) -> data.Provenance:
    """What `craft` writes of where a set comes from.

    `extra` joins the attack's parameters.
    """
    purifier = classifier.purifier
    base = classifier.base or classifier
    return data.Provenance(
        attack=attack.name,
        params={**attack.params, **extra},
        threat_model=THREAT_OF_PURIFIER[purifier is not None],
        seed=attack.seed,
        dataset=dataset.name,
        split=split,
        classifier_fingerprint=base.fingerprint,
        purifier_fingerprint="" if purifier is None else purifier.fingerprint,
    )


def _batches(
    attack: attacks.Attack,
    dataset: data.Dataset,
    split: str,
    shard: data.Shard,
    starts: data.AdversarialSet | None,
) -> Iterator[dict[str, tf.Tensor]]:
    """The images of a shard, with `starts` where a set of them is given."""
    size = attack.images_at_a_time(dataset.image_shape)
    window = {"start": shard.start, "limit": shard.stop}
    batches = dataset.batches(split, size, **window)
    if starts is None:
        yield from batches
        return
    for batch, begun in zip(
        batches, starts.batches(size, **window), strict=True
    ):
        yield {**batch, "starts": begun["adversarial"]}


def _craft_shard(
    sinks: Sequence[Any],
    attack: attacks.Attack,
    classifier: models.Classifier,
    batches: Iterable[dict[str, tf.Tensor]],
    progress: Progress,
) -> None:
    """Crafts one shard of each set; None stands for one that is there."""
    for batch in batches:
        results = _attack(attack, classifier, batch, progress)
        epsilons = attack.epsilons(batch["index"])
        for sink, result in zip(sinks, results, strict=True):
            if sink is not None:
                _append(sink, batch, result, epsilons)


def _attack(
    attack: attacks.Attack,
    classifier: models.Classifier,
    batch: dict[str, tf.Tensor],
    progress: Progress,
) -> Sequence[attacks.AttackResult]:
    """One result, or three where all targets are wanted."""
    images, labels = batch["images"], batch["labels"]
    keywords: dict[str, Any] = {
        "indices": batch["index"],
        "progress": progress.update,
    }
    if "starts" in batch:
        keywords["starts"] = batch["starts"]
    if attacks.wants_all_targets(attack):
        return attacks.attack_all_targets(
            attack, classifier, images, labels, **keywords
        )
    return [attack(classifier, images, labels, **keywords)]


def _append(
    sink: Any,
    batch: dict[str, tf.Tensor],
    result: attacks.AttackResult,
    epsilons: tf.Tensor,
) -> None:
    sink.append(
        images=batch["images"].numpy(),
        adversarial=result.adversarial.numpy(),
        labels=batch["labels"].numpy(),
        index=batch["index"].numpy(),
        target=result.targets.numpy(),
        epsilon=epsilons.numpy(),
        success=result.success.numpy(),
        l0=result.l0.numpy(),
        l2=result.l2.numpy(),
        linf=result.linf.numpy(),
        gradient_evaluations=result.gradient_evaluations.numpy(),
    )
