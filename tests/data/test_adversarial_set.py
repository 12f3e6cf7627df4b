"""Adversarial sets on disk: whole or not there, verified, streamed."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

import data
from data import block_shuffle


def joined(batches, key):
    return np.concatenate([batch[key].numpy() for batch in batches])


def contents(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def change(path, edit):
    with h5py.File(path, "r+") as file:
        edit(file)


def test_one_shard_makes_a_file_and_several_a_folder(tmp_path, sets):
    sets.write(tmp_path / "one", 20, shard_size=20)
    sets.write(tmp_path / "deep" / "many", 50, shard_size=20)
    assert [str(path) for path in contents(tmp_path)] == [
        "deep/many/00000-of-00003.h5",
        "deep/many/00001-of-00003.h5",
        "deep/many/00002-of-00003.h5",
        "one.h5",
    ]


def test_a_file_has_the_datasets_and_attributes_of_the_format(one_file):
    with h5py.File(one_file) as file:
        types = {name: str(file[name].dtype) for name in file}
        attributes = dict(file.attrs)
        assert file["images"].shape == (50, 4, 5, 1)
        assert file["images"].chunks == (1, 4, 5, 1)
    assert types == {
        "images": "float32",
        "adversarial": "float32",
        "labels": "int64",
        "index": "int64",
        "target": "int64",
        "epsilon": "float32",
        "success": "bool",
        "l0": "float32",
        "l2": "float32",
        "linf": "float32",
        "gradient_evaluations": "int64",
    }
    versions = json.loads(attributes.pop("package_versions"))
    assert versions["numpy"] == np.__version__
    assert json.loads(attributes.pop("params")) == {
        "epsilon": 0.25,
        "epsilons": [0.0, 0.25],
    }
    assert attributes.pop("bounds").tolist() == [0.0, 1.0]
    assert attributes == {
        "format_version": 1,
        "attack": "fgsm",
        "threat_model": "oblivious",
        "seed": 7,
        "dataset": "digits",
        "split": "test",
        "count": 50,
        "classifier_fingerprint": "abc",
        "purifier_fingerprint": "",
    }


@pytest.mark.parametrize("shard_size", [50, 20, 1])
def test_what_was_written_is_read_in_order(tmp_path, sets, shard_size):
    sets.write(tmp_path / "test", 50, shard_size=shard_size)
    loaded = data.AdversarialSet.open(tmp_path / "test")
    assert loaded.count == 50 and loaded.image_shape == sets.shape
    assert loaded.provenance == sets.provenance()
    batches = list(loaded.batches(16))
    assert [len(batch["labels"]) for batch in batches] == [16, 16, 16, 2]
    for name, values in sets.rows(0, 50).items():
        found = joined(batches, name)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values)


def test_reading_starts_and_stops_where_it_is_told(shards):
    loaded = data.AdversarialSet.open(shards)
    some = list(loaded.batches(4, start=18, limit=43))
    assert joined(some, "index").tolist() == list(range(18, 43))
    assert not list(loaded.batches(4, start=50))
    for start in (-1, 51):
        with pytest.raises(
            ValueError, match=rf"start .*\[0, 50\], got {start}"
        ):
            loaded.batches(4, start=start)


def test_pieces_that_are_read_do_not_show_in_the_batches(shards, monkeypatch):
    monkeypatch.setattr("data.adversarial_set._READ_BYTES", 160 * 7)
    batches = list(data.AdversarialSet.open(shards).batches(3))
    assert [len(b["index"]) for b in batches] == [3] * 16 + [2]
    assert joined(batches, "index").tolist() == list(range(50))


def test_a_set_opens_by_file_folder_or_name(shards, tmp_path, sets):
    sets.write(tmp_path / "one", 50)
    one_file = (tmp_path / "one.h5").rename(tmp_path / "test.h5")
    with pytest.raises(ValueError, match="both test.h5 and the folder test"):
        data.AdversarialSet.open(shards)
    assert data.AdversarialSet.open(one_file).path == one_file
    moved = shards.rename(tmp_path / "shards")
    assert data.AdversarialSet.open(tmp_path / "test").path == one_file
    assert data.AdversarialSet.open(moved).path == moved
    with pytest.raises(FileNotFoundError, match="other.h5 and in the folder"):
        data.AdversarialSet.open(shards.with_name("other"))


def test_equal_rows_make_equal_bytes(tmp_path, sets):
    sets.write(tmp_path / "a" / "test", 30)
    time.sleep(1.1)  # A time in the file would be in whole seconds.
    sets.write(tmp_path / "b" / "test", 30)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_writer_that_is_run_again_does_nothing(shards, sets):
    before = contents(shards)
    times = [path.stat().st_mtime_ns for path in sorted(shards.iterdir())]
    writer = sets.write(shards, 50, shard_size=20)
    assert writer.complete and writer.missing() == []
    assert contents(shards) == before
    assert [p.stat().st_mtime_ns for p in sorted(shards.iterdir())] == times


def test_a_writer_continues_with_the_missing_shards(shards, sets):
    before = contents(shards)
    (shards / "00001-of-00003.h5").unlink()
    (shards / "00001-of-00003.h5.partial").write_bytes(b"left by a kill")
    writer = data.AdversarialSetWriter(
        shards,
        sets.provenance(package_versions={"numpy": "another"}),
        count=50,
        image_shape=sets.shape,
        shard_size=20,
    )
    assert writer.missing() == [data.Shard(1, 20, 40)]
    assert not writer.complete
    sets.write(shards, 50, shard_size=20)
    assert contents(shards) == before


def test_an_error_leaves_nothing_behind(tmp_path, sets):
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=20,
        image_shape=sets.shape,
    )
    with (
        pytest.raises(KeyboardInterrupt),
        writer.shard(writer.missing()[0]) as sink,
    ):
        sink.append(**sets.rows(0, 20))
        raise KeyboardInterrupt
    assert contents(tmp_path) == {}
    assert writer.missing() == [data.Shard(0, 0, 20)]


@pytest.mark.parametrize(("rows", "got"), [([], "0"), ([(0, 7)], "7")])
def test_a_shard_that_lacks_rows_does_not_appear(tmp_path, sets, rows, got):
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=20,
        image_shape=sets.shape,
    )
    message = f"shard 0 must have 20 rows, got {got}"
    with (
        pytest.raises(ValueError, match=message),
        writer.shard(writer.missing()[0]) as sink,
    ):
        for start, stop in rows:
            sink.append(**sets.rows(start, stop))
    assert contents(tmp_path) == {}


def edited(rows, name, value):
    return {**rows, name: value}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda r: edited(r, "images", r["images"].astype(np.float64)),
            r"images must be float32 \[4, 4, 5, 1\], got float64",
        ),
        (
            lambda r: edited(r, "images", r["images"][:, :3]),
            r"images must be .*got float32 \[4, 3, 5, 1\]",
        ),
        (
            lambda r: edited(r, "adversarial", r["adversarial"] + 1),
            r"adversarial must be finite and in \[0, 1\], got .* to 1.265",
        ),
        (
            lambda r: edited(r, "adversarial", r["adversarial"] * np.nan),
            "adversarial must be finite .* nan",
        ),
        (
            lambda r: edited(r, "labels", r["labels"].astype(np.int32)),
            r"labels must be int64 \[4\], got int32",
        ),
        (
            lambda r: edited(r, "success", r["success"].astype(np.int64)),
            r"success must be bool \[4\], got int64",
        ),
        (
            lambda r: edited(r, "l2", np.full(4, np.inf, np.float32)),
            "l2 must be finite and not negative, got inf",
        ),
        (
            lambda r: edited(r, "l0", np.full(4, -1, np.float32)),
            "l0 must be finite and not negative, got -1",
        ),
        (
            lambda r: edited(r, "index", r["index"] + 1),
            "index must go on with 0 and end before 20, got .1, 2, 3.",
        ),
        (lambda r: edited(r, "norm", r["l2"]), r"unknown: \['norm'\]"),
        (
            lambda r: {k: v for k, v in r.items() if k != "epsilon"},
            r"missing: \['epsilon'\]",
        ),
    ],
)
def test_bad_rows_are_refused_by_name(tmp_path, sets, edit, message):
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=20,
        image_shape=sets.shape,
    )
    with (
        pytest.raises(ValueError, match=message),
        writer.shard(writer.missing()[0]) as sink,
    ):
        sink.append(**edit(sets.rows(0, 4)))
    assert contents(tmp_path) == {}


def test_more_rows_than_a_shard_has_are_refused(tmp_path, sets):
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=30,
        image_shape=sets.shape,
        shard_size=20,
    )
    with (
        pytest.raises(ValueError, match="go on with 16 and end before 20"),
        writer.shard(writer.missing()[0]) as sink,
    ):
        sink.append(**sets.rows(0, 16))
        sink.append(**sets.rows(16, 21))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attack": "pgd"}, "attribute attack must be 'pgd', got 'fgsm'"),
        ({"params": {"epsilon": 0.5}}, "attribute params must be .*0.5"),
        ({"seed": 8}, "attribute seed must be 8, got 7"),
        ({"split": "train"}, "attribute split must be 'train', got 'test'"),
        (
            {"classifier_fingerprint": "x"},
            "classifier_fingerprint must be 'x', got 'abc'",
        ),
        (
            {"purifier_fingerprint": "x"},
            "purifier_fingerprint must be 'x', got ''",
        ),
    ],
)
def test_a_set_of_another_making_is_refused_and_left(
    shards, sets, changes, message
):
    before = contents(shards)
    with pytest.raises(ValueError, match=f"00000-of-00003.h5: .*{message}"):
        sets.write(shards, 50, shard_size=20, **changes)
    assert contents(shards) == before


def test_a_set_of_another_size_is_refused_and_left(shards, sets):
    before = contents(shards)
    with pytest.raises(ValueError, match="attribute count must be 49, got 50"):
        sets.write(shards, 49, shard_size=20)
    with pytest.raises(ValueError, match="00000-of-00003.h5 must be part of"):
        sets.write(shards, 50, shard_size=10)
    with pytest.raises(ValueError, match="00000-of-00003.h5 must be part of"):
        sets.write(shards, 50)
    message = r"image_shape must be \(4, 4, 1\), got \(4, 5, 1\)"
    with pytest.raises(ValueError, match=message):
        sets.write(shards, 50, shard_size=20, shape=(4, 4, 1))
    # 3 shards of 18 are as many as 3 of 20, but they begin elsewhere.
    with pytest.raises(
        ValueError, match="index must be every position 0 .. 17"
    ):
        sets.write(shards, 50, shard_size=18)
    assert contents(shards) == before


def test_a_file_where_a_folder_would_be_is_refused_and_left(one_file, sets):
    before = contents(one_file.parent)
    with pytest.raises(ValueError, match="test.h5 must be part of .* 3 file"):
        sets.write(one_file.with_suffix(""), 50, shard_size=20)
    assert contents(one_file.parent) == before


@pytest.mark.parametrize("use", ["read", "write"])
@pytest.mark.parametrize("kept", [0, 100, 2000, -1])
def test_a_truncated_file_is_refused_and_left(one_file, sets, kept, use):
    one_file.write_bytes(one_file.read_bytes()[:kept])
    before = contents(one_file.parent)
    with pytest.raises(ValueError, match="test.h5 must be a whole HDF5 file"):
        if use == "read":
            data.AdversarialSet.open(one_file)
        else:
            sets.write(one_file.with_suffix(""), 50)
    assert contents(one_file.parent) == before


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"\x89PNG\r\n" * 1000)
    with pytest.raises(ValueError, match="x.h5 must be a whole HDF5 file"):
        data.AdversarialSet.open(path)
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ValueError, match="no dataset images of rank 4"):
        data.AdversarialSet.open(path)
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((3, 2, 2, 1), np.float32)
    with pytest.raises(ValueError, match="no attribute format_version, count"):
        data.AdversarialSet.open(path)


def replace(name, values):
    def edit(file):
        del file[name]
        file[name] = values

    return edit


def set_attribute(name, value):
    def edit(file):
        file.attrs[name] = value

    return edit


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_attribute("format_version", 2), "format_version must be 1, got 2"),
        (set_attribute("params", "{"), "must say how the set was made"),
        (set_attribute("bounds", [-1.0, 1.0]), r"bounds must be \(0.0, 1.0\)"),
        (set_attribute("count", 51), "51 images, but 1 .* have 50"),
        (lambda file: file.attrs.pop("seed"), "has no attribute seed"),
        (lambda file: file.pop("l2"), "must have a dataset l2"),
        (
            replace("labels", np.zeros(50, np.int32)),
            r"dataset labels must be int64 \[50\], got int32 \[50\]",
        ),
        (
            replace("success", np.zeros(49, bool)),
            r"dataset success must be bool \[50\], got bool \[49\]",
        ),
        (
            replace("adversarial", np.zeros((50, 4, 4, 1), np.float32)),
            r"dataset adversarial must be .*got float32 \[50, 4, 4, 1\]",
        ),
        (
            replace("index", np.arange(1, 51)),
            "index must be every position 0 .. 49 .*, 1 .. 50",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(one_file, edit, message):
    change(one_file, edit)
    before = one_file.read_bytes()
    with pytest.raises(ValueError, match=message) as error:
        data.AdversarialSet.open(one_file)
    assert str(one_file) in str(error.value)
    assert one_file.read_bytes() == before


def test_pixels_out_of_range_are_refused_when_read(one_file):
    def edit(file):
        file["adversarial"][30] = -1.0

    change(one_file, edit)
    loaded = data.AdversarialSet.open(one_file)
    with pytest.raises(Exception, match=r"test.h5: adversarial must be .*-1"):
        list(loaded.batches(16))
    with pytest.raises(Exception, match=r"test.h5: adversarial must be .*-1"):
        list(loaded.training_batches(50, seed=1, total_steps=1))


def test_what_is_expected_of_a_set_is_verified(shards):
    expected = {
        "dataset": "digits",
        "image_shape": [4, 5, 1],
        "params": {"epsilon": 0.25, "epsilons": [0.0, 0.25]},
        "count": 50,
    }
    data.AdversarialSet.open(shards, expected=expected)
    message = "of-00003.h5: attribute dataset must be 'mnist', got 'digits'"
    with pytest.raises(ValueError, match=message):
        data.AdversarialSet.open(shards, expected={"dataset": "mnist"})
    with pytest.raises(ValueError, match="expected attribute .*mean 'seed'"):
        data.AdversarialSet.open(shards, expected={"sed": 1})


def test_missing_shards_are_named_and_partial_ones_never_read(shards):
    partial = shards / "00002-of-00003.h5.partial"
    (shards / "00002-of-00003.h5").rename(partial)
    (shards / "00000-of-00003.h5").unlink()
    message = "3 shards, but 0, 2 are missing; run craft again"
    with pytest.raises(ValueError, match=message):
        data.AdversarialSet.open(shards)
    with pytest.raises(ValueError, match="half written file"):
        data.AdversarialSet.open(partial)
    (shards / "00001-of-00003.h5").unlink()
    with pytest.raises(FileNotFoundError, match="there are none"):
        data.AdversarialSet.open(shards)


def test_shards_of_two_sets_are_refused(shards, tmp_path, sets):
    sets.write(tmp_path / "other", 50, shard_size=20, seed=8)
    shutil.copy(tmp_path / "other" / "00001-of-00003.h5", shards)
    message = "00001-of-00003.h5: attribute seed must be 7, got 8"
    with pytest.raises(ValueError, match=message):
        data.AdversarialSet.open(shards)
    (shards / "00000-of-00004.h5").touch()
    with pytest.raises(ValueError, match="they are of 3 and of 4"):
        data.AdversarialSet.open(shards)
    (shards / "mine.h5").touch()
    with pytest.raises(ValueError, match="mine.h5 must have a name like"):
        data.AdversarialSet.open(shards)


def test_one_shard_of_many_is_not_a_set(shards):
    with pytest.raises(ValueError, match="50 images, but 1 .* have 20"):
        data.AdversarialSet.open(shards / "00000-of-00003.h5")


def test_statistics_are_over_the_successes_that_moved(tmp_path, sets):
    rows = sets.rows(0, 4)
    rows["success"] = np.array([True, True, True, False])
    rows["l2"] = np.array([0.0, 1.0, 3.0, 8.0], np.float32)
    rows["linf"] = np.array([0.0, 0.5, 0.25, 1.0], np.float32)
    rows["l0"] = np.array([0, 4, 20, 20], np.float32)
    rows["gradient_evaluations"] = np.array([0, 1, 2, 9])
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=4,
        image_shape=sets.shape,
    )
    with writer.shard(writer.missing()[0]) as sink:
        sink.append(**rows)
    assert data.AdversarialSet.open(tmp_path / "test").statistics() == {
        "count": 4,
        "success_rate": 0.75,
        "mean_l0": 12.0,
        "median_l0": 12.0,
        "mean_l2": 2.0,
        "median_l2": 2.0,
        "mean_linf": 0.375,
        "median_linf": 0.375,
        "mean_gradient_evaluations": 3.0,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"epsilon": np.nan}}, "params must be finite JSON values"),
        ({"params": {"x": object()}}, "params must be finite JSON values"),
        ({"params": "epsilon=1"}, "params must be a mapping"),
        ({"seed": "1"}, "seed must be an integer, got '1'"),
        ({"split": None}, "split must be a string, got None"),
        ({"bounds": (-1, 1)}, r"bounds must be \(0.0, 1.0\), got \(-1, 1\)"),
    ],
)
def test_a_provenance_that_cannot_be_stored_is_refused(sets, changes, message):
    with pytest.raises(ValueError, match=message):
        sets.provenance(**changes)


def test_a_file_is_no_larger_than_its_rows_need(tmp_path, sets):
    sets.write(tmp_path / "test", 3000)
    rows = 3000 * (2 * 4 * 20 + 49)
    assert rows < (tmp_path / "test.h5").stat().st_size < 1.8 * rows


def test_shards_hold_64_mib_and_at_most_10000_images(tmp_path, sets):
    def sizes(count, image_shape):
        writer = data.AdversarialSetWriter(
            tmp_path / "x",
            sets.provenance(),
            count=count,
            image_shape=image_shape,
        )
        return [shard.stop - shard.start for shard in writer.missing()]

    assert sizes(25_000, (28, 28, 1)) == [10_000, 10_000, 5_000]
    # 2 x 256 x 256 x 3 float32 are 1.5 MiB: 42 of them are 63 MiB.
    assert sizes(100, (256, 256, 3)) == [42, 42, 16]
    assert sizes(2, (4096, 4096, 3)) == [1, 1]


_KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from conftest import Sets
import data
writer = data.AdversarialSetWriter(
    sys.argv[2], Sets.provenance(), count=50, image_shape=Sets.shape,
    shard_size=20,
)
for shard in writer.missing():
    with writer.shard(shard) as sink:
        for start in range(shard.start, shard.stop, 16):
            stop = min(start + 16, shard.stop)
            sink.append(**Sets.rows(start, stop))
            if stop == 36:
                os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_continues_to_the_same_bytes(tmp_path, shards, sets):
    killed = tmp_path / "killed"
    here = pathlib.Path(__file__).parent
    root = str(here.parent.parent)
    run = subprocess.run(
        [sys.executable, "-c", _KILLED, str(here), str(killed)],
        env={**os.environ, "PYTHONPATH": root},
        check=False,
    )
    assert run.returncode == -signal.SIGKILL
    assert sorted(path.name for path in killed.iterdir()) == [
        "00000-of-00003.h5",
        "00001-of-00003.h5.partial",
    ]
    with pytest.raises(ValueError, match="1, 2 are missing"):
        data.AdversarialSet.open(killed)
    sets.write(killed, 50, shard_size=20)
    assert contents(killed) == contents(shards)


def test_a_full_disk_leaves_no_file_and_the_next_run_continues(tmp_path, sets):
    writer = data.AdversarialSetWriter(
        tmp_path / "test",
        sets.provenance(),
        count=2000,
        image_shape=sets.shape,
    )
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Beyond this size a write fails, as it does on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(OSError, match="too large: .*test.h5.partial"):
            sets.write_shard(writer, writer.missing()[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents(tmp_path) == {}
    sets.write(tmp_path / "test", 2000)
    assert data.AdversarialSet.open(tmp_path / "test").count == 2000


def test_memory_does_not_grow_with_the_set(tmp_path, sets, monkeypatch):
    monkeypatch.setattr(block_shuffle, "_POOL_BYTES", 2 * 2**20)
    monkeypatch.setattr(block_shuffle, "_BLOCKS_IN_POOL", 4)
    shape = (32, 32, 3)

    def use(name, count):
        sets.write(tmp_path / name, count, shard_size=1000, shape=shape)
        loaded = data.AdversarialSet.open(tmp_path / name)
        for _ in loaded.batches(100):
            pass
        for _ in loaded.training_batches(50, seed=1, total_steps=count // 50):
            pass
        # Kilobytes, at the most so far.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = use("small", 400)
    after = use("large", 6000)
    # The large set has 140 MiB of images; the process's own peak wanders by
    # some 30 MiB, more so after many other tests.
    assert after - before < 70
