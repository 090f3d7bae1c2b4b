"""Files and folders appear whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_bert.atomic import atomic_file, atomic_folder, in_use_by_one, scratch_folder


def tree(path):
    return {str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()}


def write(kind, path, text):
    with kind(path) as scratch:
        (scratch / "part" if kind is atomic_folder else scratch).write_text(text)


KINDS = pytest.mark.parametrize("kind", [atomic_file, atomic_folder])


@KINDS
def test_new_then_replaced(tmp_path, kind):
    name = "out/x/part" if kind is atomic_folder else "out/x"
    for text in ("one", "two"):
        write(kind, tmp_path / "out" / "x", text)
        assert tree(tmp_path) == {name: text}
    mode = (tmp_path / "out" / "x").stat().st_mode & 0o777
    assert mode == (0o755 if kind is atomic_folder else 0o644), "readable to others, unlike what tempfile makes"


@KINDS
def test_nothing_of_the_old_folder_stays(tmp_path, kind):
    write(kind, tmp_path / "x", "old")
    if kind is atomic_folder:
        (tmp_path / "x" / "extra").write_text("old")
    write(kind, tmp_path / "x", "new")
    assert list(tree(tmp_path).values()) == ["new"]


@KINDS
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_things_as_they_were(tmp_path, kind, error):
    write(kind, tmp_path / "x", "old")
    before = tree(tmp_path)

    def fail():
        with kind(tmp_path / "x") as scratch:
            (scratch / "part" if kind is atomic_folder else scratch).write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert tree(tmp_path) == before
    with pytest.raises(error), kind(tmp_path / "y"):
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


KILLED = """
import os, signal, sys
from pathlib import Path
from keras_bert import atomic
with getattr(atomic, sys.argv[1])(Path("x")) as scratch:
    (scratch / "part" if sys.argv[1] == "atomic_folder" else scratch).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@KINDS
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_leaves_things_as_they_were(tmp_path, kind):
    write(kind, tmp_path / "x", "old")
    before = tree(tmp_path)
    root = str(Path(__file__).parent.parent)
    # As `keras-bert`, for which the package loads no TensorFlow.
    code = f"import sys; sys.argv = ['keras-bert', {kind.__name__!r}]\n{KILLED}"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": root})
    assert result.returncode == -signal.SIGKILL
    after = tree(tmp_path)
    assert before.items() < after.items(), "what was written lies beside"
    write(kind, tmp_path / "x", "new")
    assert list(tree(tmp_path).values()) == ["new"], "the next run clears it away"


@KINDS
def test_a_scratch_in_use_is_not_cleared_away(tmp_path, kind):
    with kind(tmp_path / "x") as first:
        (first / "part" if kind is atomic_folder else first).write_text("first")
        write(kind, tmp_path / "x", "second")
        assert first.exists()
    assert list(tree(tmp_path).values()) == ["first"]


def test_a_folder_that_was_moved_aside_comes_back(tmp_path):
    """A kill between the two renames of atomic_folder."""
    aside = tmp_path / ".x.abcdefgh.old" / "folder"
    aside.mkdir(parents=True)
    (aside / "part").write_text("old")
    with scratch_folder(tmp_path, "x"):
        pass
    assert tree(tmp_path) == {"x/part": "old"}


def test_what_was_made_beside_a_scratch_goes_with_it(tmp_path):
    (tmp_path / ".x.abcdefgh.tmp").write_text("half")
    (tmp_path / "..x.abcdefgh.tmp_more").mkdir()
    (tmp_path / ".y.abcdefgh.tmp").write_text("of another name")
    write(atomic_file, tmp_path / "x", "new")
    assert set(tree(tmp_path)) == {"x", ".y.abcdefgh.tmp"}
    assert not (tmp_path / "..x.abcdefgh.tmp_more").exists()


def test_a_folder_is_in_use_by_one(tmp_path):
    with (
        in_use_by_one(tmp_path),
        pytest.raises(ValueError, match="where another run is at work"),
        in_use_by_one(tmp_path),
    ):
        pass
    with in_use_by_one(tmp_path):
        pass
