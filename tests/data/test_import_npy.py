"""Published pairs of .npy files become adversarial sets."""

import numpy as np
import pytest
import tensorflow as tf

import data


@pytest.fixture
def pairs(tmp_path):
    random = np.random.default_rng(0)
    clean = random.uniform(-1, 0.5, (10, 4, 5, 1)).astype(np.float32)
    adversarial = clean.copy()
    adversarial[:, 0, :2] += 0.5
    arrays = {
        "clean": clean,
        "adversarial": adversarial,
        "labels": np.arange(10, dtype=np.int32) % 3,
    }
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path, arrays


def run(folder, sets, **options):
    return data.import_npy_pairs(
        folder / "clean.npy",
        folder / "adversarial.npy",
        folder / "labels.npy",
        folder / "out",
        provenance=sets.provenance(attack="published"),
        **options,
    )


@pytest.mark.parametrize("batch_size", [3, 256])
def test_pairs_are_brought_to_the_unit_range(pairs, sets, batch_size):
    folder, arrays = pairs
    imported = run(folder, sets, batch_size=batch_size)
    rows = next(iter(imported.batches(10)))
    np.testing.assert_allclose(
        rows["images"], arrays["clean"] / 2 + 0.5, atol=1e-7
    )
    np.testing.assert_allclose(
        rows["adversarial"], arrays["adversarial"] / 2 + 0.5, atol=1e-7
    )
    assert rows["labels"].numpy().tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    # Two values of each image moved by 0.25.
    np.testing.assert_array_equal(rows["l0"], np.full(10, 2))
    np.testing.assert_allclose(rows["l2"], np.full(10, 0.125**0.5), rtol=1e-5)
    np.testing.assert_allclose(rows["linf"], np.full(10, 0.25), rtol=1e-5)
    assert np.isnan(rows["epsilon"]).all() and not np.any(rows["success"])
    assert (rows["target"].numpy() == -1).all()
    assert imported.provenance.attack == "published"


def test_images_without_channels_are_grey(pairs, sets):
    folder, arrays = pairs
    for name in ("clean", "adversarial"):
        np.save(folder / f"{name}.npy", arrays[name][..., 0].astype(float))
    assert run(folder, sets).image_shape == (4, 5, 1)


def test_a_classifier_tells_which_attacks_succeeded(pairs, sets):
    folder, _ = pairs

    def says_one(images):
        return tf.one_hot(tf.ones(len(images), tf.int32), 3)

    rows = next(iter(run(folder, sets, logits=says_one).batches(10)))
    expected = rows["labels"].numpy() != 1
    np.testing.assert_array_equal(rows["success"], expected)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "clean",
            np.zeros((10, 4, 5, 1), np.uint8),
            "clean.npy must be floats",
        ),
        ("clean", np.full((10, 4, 5, 1), 1.5), r"clean.npy .*\[-1, 1\], got"),
        ("clean", np.full((10, 4, 5, 1), np.nan), "clean.npy must be finite"),
        (
            "adversarial",
            np.zeros((9, 4, 5, 1)),
            "adversarial.npy must have the",
        ),
        ("labels", np.zeros(10), "labels.npy must be integers .10., got float"),
        ("labels", np.zeros(9, int), r"labels.npy .*got int64 \[9\]"),
        ("labels", np.array([None]), "labels.npy must be a whole .npy file"),
    ],
)
def test_a_wrong_file_is_refused_by_name(pairs, sets, name, array, message):
    folder, _ = pairs
    np.save(folder / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=message):
        run(folder, sets)
    assert not (folder / "out.h5").exists()


def test_a_missing_or_truncated_file_is_named(pairs, sets):
    folder, _ = pairs
    file = folder / "clean.npy"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(ValueError, match="clean.npy must be a whole .npy"):
        run(folder, sets)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="clean.npy is not there"):
        run(folder, sets)
