"""Files and folders appear whole or not at all."""

import errno
import json

import pytest

from data import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_file(path, text="whole"):
    path.write_text(text)


def write_folder(path, text="whole"):
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "file.txt").write_text(text)


WRITERS = pytest.mark.parametrize("write", [write_file, write_folder])


def text_of(path):
    inner = path / "inner" / "file.txt"
    return (inner if path.is_dir() else path).read_text()


@WRITERS
def test_what_is_written_appears_and_nothing_else(tmp_path, write):
    path = tmp_path / "new" / "thing.npy"
    with files.written_whole(path) as temporary:
        write(temporary)
        assert not path.exists()
        # Keras and NumPy look at the suffix.
        assert temporary.suffix == ".npy"
        assert temporary.parent == path.parent
    assert names(path.parent) == ["thing.npy"]
    assert text_of(path) == "whole"


@WRITERS
def test_a_writer_that_fails_leaves_nothing(tmp_path, write):
    with pytest.raises(KeyError), files.written_whole(tmp_path / "x") as path:
        write(path)
        raise KeyError("on the way")
    assert names(tmp_path) == []


@WRITERS
def test_a_full_disk_leaves_what_was_there(tmp_path, write):
    write(tmp_path / "x")
    full = OSError(errno.ENOSPC, "No space left on device")
    with (
        pytest.raises(OSError, match="No space left"),
        files.written_whole(tmp_path / "x") as path,
    ):
        write(path, "half")
        raise full
    assert names(tmp_path) == ["x"]
    assert text_of(tmp_path / "x") == "whole"


@WRITERS
def test_what_was_there_is_replaced(tmp_path, write):
    write(tmp_path / "x", "old")
    with files.written_whole(tmp_path / "x") as path:
        write(path, "new")
    assert names(tmp_path) == ["x"]
    assert text_of(tmp_path / "x") == "new"


@WRITERS
def test_what_is_there_is_kept_where_it_shall_be(tmp_path, write):
    write(tmp_path / "x", "old")
    with (
        pytest.raises(FileExistsError, match="x exists"),
        files.written_whole(tmp_path / "x", overwrite=False),
    ):
        pytest.fail("there is nothing to write")
    assert text_of(tmp_path / "x") == "old"


@WRITERS
def test_what_appears_meanwhile_is_kept_where_it_shall_be(tmp_path, write):
    with (
        pytest.raises(FileExistsError, match="x exists"),
        files.written_whole(tmp_path / "x", overwrite=False) as path,
    ):
        write(path, "new")
        write(tmp_path / "x", "another's")
    assert text_of(tmp_path / "x") == "another's"
    assert names(tmp_path) == ["x"]


@WRITERS
def test_the_remains_of_a_kill_are_written_over(tmp_path, write):
    with files.written_whole(tmp_path / "x") as path:
        remains = path
        write(path)
    write(remains, "remains")
    with files.written_whole(tmp_path / "x") as path:
        assert not path.exists()
        write(path, "new")
    assert names(tmp_path) == ["x"]


def test_a_writer_that_writes_nothing_is_an_error(tmp_path):
    with (
        pytest.raises(FileNotFoundError),
        files.written_whole(tmp_path / "x"),
    ):
        pass
    assert names(tmp_path) == []


def test_json_is_written_and_read(tmp_path):
    path = tmp_path / "x.json"
    files.write_json(path, {"a": [1, None, "é"]})
    assert files.read_json(path) == {"a": [1, None, "é"]}
    assert json.loads(path.read_text(encoding="utf-8"))


def test_json_without_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"a": float("nan")})
    assert names(tmp_path) == []


def test_a_broken_json_file_is_named(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('{"a": ')
    with pytest.raises(ValueError, match=r"x\.json is not valid JSON"):
        files.read_json(path)


def test_two_runs_do_not_write_to_one_place(tmp_path):
    lock = tmp_path / "run" / ".lock"
    with files.exclusive(lock):
        assert lock.exists()
        with (
            pytest.raises(
                RuntimeError, match=r"another run is writing to .*run"
            ),
            files.exclusive(lock),
        ):
            pass
        assert lock.exists()
    assert not lock.exists()
    lock.touch()  # Left by a killed run.
    with files.exclusive(lock):
        pass
    assert not lock.exists()


def test_a_lock_file_that_its_holder_removes_is_made_again(
    tmp_path, monkeypatch
):
    """Another run opened the file, its holder removes it, then it is locked."""
    lock = tmp_path / ".lock"
    flock, calls = files.fcntl.flock, []

    def removed_before_the_first(file, operation):
        if not calls:
            lock.unlink()
        calls.append(operation)
        flock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", removed_before_the_first)
    with files.exclusive(lock):
        assert len(calls) == 2 and lock.exists()
        with pytest.raises(RuntimeError), files.exclusive(lock):
            pass
