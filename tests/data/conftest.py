"""Small adversarial sets that tests write and read."""

import numpy as np
import pytest

import data

SHAPE = (4, 5, 1)


def make_rows(start, stop, shape=SHAPE):
    """Rows start .. stop of a set in which each row can be told by its values.

    The clean image of row i is (i % 100) / 200 everywhere.
    """
    index = np.arange(start, stop)
    images = np.ones((len(index), *shape), np.float32)
    images *= ((index % 100) / 200).astype(np.float32)[:, None, None, None]
    adversarial = images + np.float32(0.25)
    size = int(np.prod(shape))
    return {
        "images": images,
        "adversarial": adversarial,
        "labels": index % 10,
        "index": index,
        "target": np.full_like(index, -1),
        "epsilon": np.where(index % 2, 0.25, np.nan).astype(np.float32),
        "success": index % 4 != 0,
        "l0": np.full(len(index), size, np.float32),
        "l2": np.full(len(index), 0.25 * size**0.5, np.float32),
        "linf": np.full(len(index), 0.25, np.float32),
        "gradient_evaluations": index % 3,
    }


def make_provenance(**changes):
    values = {
        "attack": "fgsm",
        "params": {"epsilon": 0.25, "epsilons": (0.0, 0.25)},
        "threat_model": "oblivious",
        "seed": 7,
        "dataset": "digits",
        "split": "test",
        "classifier_fingerprint": "abc",
    }
    return data.Provenance(**{**values, **changes})


def write_shard(writer, shard, batch_size=16, shape=SHAPE):
    with writer.shard(shard) as sink:
        for start in range(shard.start, shard.stop, batch_size):
            stop = min(start + batch_size, shard.stop)
            sink.append(**make_rows(start, stop, shape))


def write_set(path, count, shard_size=None, shape=SHAPE, **changes):
    writer = data.AdversarialSetWriter(
        path,
        make_provenance(**changes),
        count=count,
        image_shape=shape,
        shard_size=shard_size,
    )
    for shard in writer.missing():
        write_shard(writer, shard, shape=shape)
    return writer


class Sets:
    """The helpers of this module, for tests: they cannot import it."""

    shape = SHAPE
    rows = staticmethod(make_rows)
    provenance = staticmethod(make_provenance)
    write_shard = staticmethod(write_shard)
    write = staticmethod(write_set)


@pytest.fixture(scope="session")
def sets():
    return Sets


@pytest.fixture
def one_file(tmp_path, sets):
    sets.write(tmp_path / "test", 50)
    return tmp_path / "test.h5"


@pytest.fixture
def shards(tmp_path, sets):
    sets.write(tmp_path / "test", 50, shard_size=20)
    return tmp_path / "test"
