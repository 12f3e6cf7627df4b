"""The datasets: their splits, their order, and files that are not right."""

import numpy as np
import pytest

import data

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def joined(batches, key):
    return np.concatenate([batch[key].numpy() for batch in batches])


def write_mnist(folder, train=24, test=6, **changes):
    random = np.random.default_rng(0)
    arrays = {
        "x_train": random.integers(0, 256, (train, 28, 28), np.uint8),
        "y_train": (np.arange(train) % 10).astype(np.uint8),
        "x_test": random.integers(0, 256, (test, 28, 28), np.uint8),
        "y_test": (np.arange(test) % 10).astype(np.uint8),
        **changes,
    }
    np.savez(folder / "mnist.npz", **arrays)
    return arrays


def test_the_names_of_the_datasets():
    assert data.DATASETS == ("cifar10", "digits", "image_folder", "mnist")
    with pytest.raises(ValueError, match="cifar10, digits, .*mean 'mnist'"):
        data.load("mnits")


def test_digits_are_1797_scans_in_three_disjoint_splits(digits):
    assert [digits.count(split) for split in SPLITS] == [1197, 200, 400]
    assert digits.image_shape == (28, 28, 1)
    assert digits.num_classes == 10 and digits.class_names[3] == "3"
    images = np.concatenate(
        [joined(digits.batches(split, 500), "images") for split in SPLITS]
    )
    assert images.dtype == np.float32 and images.shape == (1797, 28, 28, 1)
    assert images.min() == 0.0 and images.max() == 1.0
    # One scan is in the bundle twice; a leak would show as hundreds.
    assert len(np.unique(images.reshape(1797, -1), axis=0)) >= 1796
    labels = np.concatenate(
        [joined(digits.batches(split, 500), "labels") for split in SPLITS]
    )
    # The published numbers of scans of each digit.
    assert np.bincount(labels).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


def test_digits_look_like_the_scans_they_were_made_of(digits):
    import sklearn.datasets

    scans = sklearn.datasets.load_digits()
    batch = next(iter(digits.batches("test", 400)))
    # Each pixel of a scan covers 3.5 x 3.5: the means are close.
    means = batch["images"].numpy().reshape(400, 4, 7, 4, 7).mean((2, 4))
    targets = scans.images.reshape(1797, 4, 2, 4, 2).mean((2, 4)) / 16
    for mean, label in zip(means, batch["labels"].numpy(), strict=True):
        distances = np.abs(targets - mean).max((1, 2))
        nearest = distances.argmin()
        assert distances[nearest] < 0.2
        assert scans.target[nearest] == label


def test_batches_are_in_order_and_the_last_is_shorter(digits):
    batches = list(digits.batches("test", 150))
    assert [len(batch["labels"]) for batch in batches] == [150, 150, 100]
    assert joined(batches, "index").tolist() == list(range(400))
    assert batches[0]["labels"].dtype == batches[0]["index"].dtype == "int64"


def test_start_and_limit_choose_positions(digits):
    everything = joined(digits.batches("test", 400), "images")
    some = list(digits.batches("test", 4, start=3, limit=13))
    assert joined(some, "index").tolist() == list(range(3, 13))
    np.testing.assert_array_equal(joined(some, "images"), everything[3:13])
    assert not list(digits.batches("test", 4, start=13, limit=13))
    assert len(joined(digits.batches("test", 400, limit=9999), "index")) == 400


def test_an_epoch_has_every_position_once_and_epochs_differ(digits):
    index = joined(
        digits.training_batches("test", 50, seed=1, total_steps=16), "index"
    )
    first, second = index[:400], index[400:]
    assert sorted(first) == sorted(second) == list(range(400))
    assert np.mean(first == second) < 0.05
    other = joined(
        digits.training_batches("test", 50, seed=2, total_steps=8), "index"
    )
    assert np.mean(first == other) < 0.05


def test_an_epoch_leaves_out_what_does_not_fill_a_batch(digits):
    assert data.steps_per_epoch(400, 64) == 6
    batches = list(digits.training_batches("test", 64, seed=1, total_steps=12))
    assert {batch["images"].shape[0] for batch in batches} == {64}
    for epoch in (batches[:6], batches[6:]):
        assert len(set(joined(epoch, "index"))) == 384


@pytest.mark.parametrize("start_step", [0, 1, 5, 6, 7, 19, 20])
def test_a_resumed_run_sees_what_an_undisturbed_one_sees(digits, start_step):
    options = {"seed": 3, "total_steps": 20, "shift": 2, "flip": True}
    whole = list(digits.training_batches("test", 64, **options))
    rest = list(
        digits.training_batches("test", 64, start_step=start_step, **options)
    )
    assert len(rest) == 20 - start_step
    for expected, found in zip(whole[start_step:], rest, strict=True):
        for key in ("images", "labels", "index"):
            np.testing.assert_array_equal(found[key], expected[key])


def test_shifted_images_are_translations_filled_with_zeros(digits):
    options = {"seed": 1, "total_steps": 3}
    plain = list(digits.training_batches("test", 64, **options))
    moved = list(digits.training_batches("test", 64, shift=2, **options))
    before = joined(plain, "images")
    padded = np.pad(before, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, source in zip(joined(moved, "images"), padded, strict=True):
        matches = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if np.array_equal(image, source[top : top + 28, left : left + 28])
        ]
        assert matches
        seen.update(matches)
    assert len(seen) == 25


def test_about_half_of_the_images_are_mirrored(digits):
    options = {"seed": 1, "total_steps": 6}
    plain = joined(digits.training_batches("test", 64, **options), "images")
    mixed = joined(
        digits.training_batches("test", 64, flip=True, **options), "images"
    )
    same = (plain == mixed).all((1, 2, 3))
    mirrored = (plain[:, :, ::-1] == mixed).all((1, 2, 3))
    assert (same | mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6


def test_training_can_use_the_first_images_only(digits):
    batches = digits.training_batches(
        "test", 8, seed=1, total_steps=4, limit=16
    )
    assert sorted(joined(batches, "index")) == sorted([*range(16)] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.batches("tets", 4), "split must be one of .*mean 'test'"),
        (lambda d: d.batches("test", 0), "batch_size must be a positive int"),
        (lambda d: d.batches("test", 4, limit=0), "limit must be a positive"),
        (lambda d: d.batches("test", 4, start=401), r"start must be in .*401"),
        (lambda d: d.batches("test", 4, start=-1), r"start must be in .*-1"),
        (
            lambda d: d.training_batches("test", 401, seed=1, total_steps=1),
            "batch_size must be at most the number of images, 400, got 401",
        ),
        (
            lambda d: d.training_batches(
                "test", 4, seed=1, start_step=3, total_steps=2
            ),
            r"start_step must be in \[0, total_steps = 2\], got 3",
        ),
        (
            lambda d: d.training_batches(
                "test", 4, seed=1, total_steps=2, shift=28
            ),
            r"shift must be in \[0, 28\), got 28",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(digits, call, message):
    with pytest.raises(ValueError, match=message):
        call(digits)


def test_the_number_of_validation_images_can_be_chosen():
    digits = data.load("digits", validation_count=0)
    assert [digits.count(split) for split in SPLITS] == [1397, 0, 400]
    with pytest.raises(ValueError, match="validation_count=0"):
        digits.batches("validation", 4)
    assert data.load("digits", validation_count=7).count("train") == 1390
    for count in (-1, 1397):
        with pytest.raises(ValueError, match=r"\[0, 1397\).*got"):
            data.load("digits", validation_count=count)


def test_mnist_is_read_from_the_folder_and_the_last_are_held_out(tmp_path):
    arrays = write_mnist(tmp_path)
    mnist = data.load("mnist", data_dir=tmp_path)
    assert [mnist.count(split) for split in SPLITS] == [22, 2, 6]
    held_out = next(iter(mnist.batches("validation", 8)))
    np.testing.assert_array_equal(
        held_out["images"].numpy()[..., 0],
        arrays["x_train"][22:].astype(np.float32) / np.float32(255),
    )
    assert held_out["labels"].numpy().tolist() == [2, 3]


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("APE_GAN_TF_DATA", str(tmp_path))
    assert data.load("mnist").count("test") == 6
    # What is given goes before what the environment says.
    with pytest.raises(FileNotFoundError, match="elsewhere/mnist.npz"):
        data.load("mnist", data_dir=tmp_path / "elsewhere")


@pytest.mark.parametrize("name", ["mnist", "cifar10", "image_folder"])
def test_a_folder_without_the_files_says_which_it_looked_for(tmp_path, name):
    wanted = {
        "mnist": "mnist.npz",
        "cifar10": "cifar-10-batches-bin/data_batch_1.bin",
        "image_folder": "imagenet/train",
    }[name]
    with pytest.raises(FileNotFoundError, match=str(tmp_path / wanted)):
        data.load(name, data_dir=tmp_path)


def test_a_failed_download_says_where_to_put_the_file(monkeypatch):
    keras = pytest.importorskip("keras")

    def fail():
        raise Exception("URL fetch failure")

    monkeypatch.delenv("APE_GAN_TF_DATA", raising=False)
    monkeypatch.setattr(keras.datasets.mnist, "load_data", fail)
    with pytest.raises(OSError, match="URL fetch .*DIR/mnist.npz.*data_dir"):
        data.load("mnist")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((24, 784), np.uint8)}, r"got uint8 \[24, 784\]"),
        ({"x_test": np.zeros((6, 28, 28), np.float32)}, "x_test .*float32"),
        ({"y_train": np.zeros(23, np.uint8)}, r"y_train .*\[24\].*\[23\]"),
        ({"y_test": np.full(6, 10, np.uint8)}, r"y_test .*from 10 to 10"),
        ({"y_test": np.array([None] * 6)}, "mnist.npz must be a whole .npz"),
    ],
)
def test_a_wrong_mnist_file_is_refused(tmp_path, changes, message):
    write_mnist(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        data.load("mnist", data_dir=tmp_path)


def test_a_truncated_or_foreign_mnist_file_is_refused(tmp_path):
    write_mnist(tmp_path)
    file = tmp_path / "mnist.npz"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="mnist.npz must be a whole .npz"):
        data.load("mnist", data_dir=tmp_path)
    file.write_bytes(b"")
    with pytest.raises(ValueError, match="mnist.npz must be a whole .npz"):
        data.load("mnist", data_dir=tmp_path)
    np.savez(file, other=np.zeros(3))
    with pytest.raises(ValueError, match="must hold the arrays x_train"):
        data.load("mnist", data_dir=tmp_path)


def write_cifar10(folder):
    """Six files of zeros; the first record of each is told by its number."""
    (folder / "cifar-10-batches-bin").mkdir()
    names = [f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]
    paths = [folder / "cifar-10-batches-bin" / name for name in names]
    for number, path in enumerate(paths):
        record = np.zeros(3073, np.uint8)
        record[0] = number
        # Red, green and blue of the pixel in row 1, column 2.
        record[[1 + 34, 1 + 1024 + 34, 1 + 2048 + 34]] = 51, 102, 255
        with path.open("wb") as file:
            file.write(record.tobytes())
            file.truncate(10_000 * 3073)
    return paths


def test_cifar10_is_read_from_the_published_format(tmp_path):
    write_cifar10(tmp_path)
    cifar10 = data.load("cifar10", data_dir=tmp_path, validation_count=10_001)
    assert cifar10.image_shape == (32, 32, 3)
    assert cifar10.class_names[0] == "airplane"
    assert [cifar10.count(split) for split in SPLITS] == [39999, 10001, 10000]
    held_out = next(iter(cifar10.batches("validation", 2)))
    # The last record of the fourth file, and the first of the fifth.
    assert held_out["labels"].numpy().tolist() == [0, 4]
    image = held_out["images"].numpy()[1]
    np.testing.assert_allclose(image[1, 2], [0.2, 0.4, 1.0])
    assert image.sum() == pytest.approx(1.6)
    test = next(iter(cifar10.batches("test", 1)))
    assert test["labels"].numpy().tolist() == [5]


def test_a_wrong_cifar10_file_is_refused(tmp_path):
    paths = write_cifar10(tmp_path)
    with paths[2].open("rb+") as file:
        file.seek(3073 * 5)
        file.write(b"\x0a")
    with pytest.raises(ValueError, match="batch_3.bin: .*got 10 in record 5"):
        data.load("cifar10", data_dir=tmp_path)
    with paths[4].open("rb+") as file:
        file.truncate(30_729_999)
    message = "batch_5.bin must have 30730000 bytes, .*, got 30729999"
    with pytest.raises(ValueError, match=message):
        data.load("cifar10", data_dir=tmp_path)


@pytest.mark.real_data
def test_the_real_mnist(real_data_dir):
    if not (real_data_dir / "mnist.npz").exists():
        pytest.skip("real data: there is no mnist.npz")
    mnist = data.load("mnist", data_dir=real_data_dir)
    assert [mnist.count(split) for split in SPLITS] == [55000, 5000, 10000]
    labels = joined(mnist.batches("test", 1000), "labels")
    # The published numbers of test images of each digit.
    assert np.bincount(labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip


@pytest.mark.real_data
def test_the_real_cifar10(real_data_dir):
    if not (real_data_dir / "cifar-10-batches-bin").exists():
        pytest.skip("real data: there is no cifar-10-batches-bin")
    cifar10 = data.load("cifar10", data_dir=real_data_dir)
    assert [cifar10.count(split) for split in SPLITS] == [45000, 5000, 10000]
    labels = joined(cifar10.batches("test", 1000), "labels")
    assert np.bincount(labels).tolist() == [1000] * 10
    # The published order begins with a cat, a ship, a ship, an airplane.
    names = [cifar10.class_names[label] for label in labels[:4]]
    assert names == ["cat", "ship", "ship", "airplane"]
