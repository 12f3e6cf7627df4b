"""Shuffled batches of an adversarial set, to train on."""

import numpy as np
import pytest

import data
from data import adversarial_format, block_shuffle


@pytest.fixture(params=["one pool", "many pools"])
def training(request, monkeypatch, shards, sets):
    """The set of 50 rows, in one pool or in pools of 12."""
    if request.param == "many pools":
        row_bytes = adversarial_format.bytes_per_row(sets.shape)
        monkeypatch.setattr(block_shuffle, "_POOL_BYTES", 12 * row_bytes)
        monkeypatch.setattr(block_shuffle, "_BLOCKS_IN_POOL", 4)
    return data.AdversarialSet.open(shards)


def positions(batch):
    """The rows of a batch: below 100, an image tells which row it is."""
    return np.rint(batch["images"].numpy()[:, 0, 0, 0] * 200).astype(int)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 50])
def test_an_epoch_has_each_row_at_most_once(training, batch_size):
    steps = 50 // batch_size
    batches = list(
        training.training_batches(batch_size, seed=1, total_steps=2 * steps)
    )
    assert len(batches) == 2 * steps
    epochs = []
    for epoch in (batches[:steps], batches[steps:]):
        rows = np.concatenate([positions(batch) for batch in epoch])
        assert len(rows) == len(set(rows)) == steps * batch_size
        epochs.append(rows)
    assert np.mean(epochs[0] == epochs[1]) < 0.3
    assert np.mean(epochs[0] == np.arange(len(epochs[0]))) < 0.3


def test_a_training_batch_has_the_fields_of_its_rows(training, sets):
    batch = next(iter(training.training_batches(16, seed=1, total_steps=1)))
    assert set(batch) == {"images", "adversarial", "labels"}
    rows = sets.rows(0, 50)
    for name, values in batch.items():
        assert values.shape[0] == 16
        np.testing.assert_array_equal(values, rows[name][positions(batch)])


@pytest.mark.parametrize("start_step", [0, 1, 2, 3, 5, 6, 7, 11, 12])
def test_training_resumes_at_any_step(training, start_step):
    options = {"seed": 3, "total_steps": 12}
    whole = [positions(b) for b in training.training_batches(16, **options)]
    rest = [
        positions(b)
        for b in training.training_batches(16, start_step=start_step, **options)
    ]
    assert len(rest) == 12 - start_step
    for expected, found in zip(whole[start_step:], rest, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_training_can_use_the_first_rows_only(training):
    batches = training.training_batches(5, seed=1, total_steps=6, limit=15)
    rows = np.concatenate([positions(batch) for batch in batches])
    assert sorted(rows) == sorted([*range(15)] * 2)


def test_seeds_give_other_orders(training):
    orders = [
        np.concatenate(
            [
                positions(b)
                for b in training.training_batches(10, seed=s, total_steps=5)
            ]
        )
        for s in (1, 2)
    ]
    assert np.mean(orders[0] == orders[1]) < 0.3


def test_a_batch_larger_than_the_set_is_refused(training):
    with pytest.raises(ValueError, match="number of images, 50, got 51"):
        training.training_batches(51, seed=1, total_steps=1)
