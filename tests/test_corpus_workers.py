"""The corpus of pretraining, built by several processes, by processes that are killed, and on a disk that is full."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("tensorflow_text")

from tiny_classifier import VOCABULARY

from keras_bert.text import save_vocabulary
from keras_bert.training.corpus import CorpusSettings, open_corpus
from keras_bert.training.corpus_build import build_corpus
from keras_bert.training.corpus_workers import Workers

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"

# What builds, in a process that can be killed: folder of the text, of the corpus, workers, when to kill itself.
PROGRAM = """
import os, signal, sys
from keras_bert.text import Tokenizer
from keras_bert.training import corpus_readers
from keras_bert.training.corpus import CorpusSettings
from keras_bert.training.corpus_build import build_corpus

corpus_readers.UNIT_BYTES = 2000
text, out, workers, end = sys.argv[1:]
seen = []

def progress(done, total, figures):
    seen.append(done)
    if done == int(end):
        os.kill(os.getpid(), signal.SIGKILL)

settings = CorpusSettings(
    max_length=32, deduplicate="near", masking="static", mask_unit="whole_word", packed=True, shards=4, held_out=0.1
)
build_corpus(text, Tokenizer.from_vocab_file(os.path.join(os.path.dirname(text), "vocab.txt")), out, settings,
             workers=int(workers), progress=progress)
print(min(seen))
"""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    save_vocabulary(VOCABULARY, folder / "vocab.txt")
    draw = random.Random(0)
    words = [piece for piece in VOCABULARY if piece.isalpha()]
    documents = [
        " ".join(
            " ".join(draw.choices(words, k=draw.randint(2, 9))).capitalize() + "." for _ in range(draw.randint(3, 9))
        )
        for _ in range(120)
    ]
    (folder / "text.txt").write_text("\n\n".join([*documents, documents[5], documents[6]]), encoding="utf-8")
    return folder / "text.txt"


def start(text, out, workers, end=-1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM, text, out, str(workers), str(end)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(text, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "corpus"
    done = start(text, out, 0)
    assert done.returncode == 0, done.stderr
    corpus = open_corpus(out)
    corpus.verify()
    assert corpus.manifest["dropped"]["exact"] >= 2
    assert len(corpus.shards("train")) == 4
    return contents(out)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_writes_the_same_bytes(text, tmp_path, whole, workers):
    done = start(text, tmp_path / "corpus", workers)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("oneDNN") <= 2, "workers do not greet"
    assert contents(tmp_path / "corpus") == whole


@pytest.mark.slow
@pytest.mark.parametrize("end", [3, -2])
def test_what_a_killed_run_has_finished_is_not_done_again(text, tmp_path, whole, end):
    out = tmp_path / "corpus"
    units = len(_units(text))
    end = units + 2 if end < 0 else end
    killed = start(text, out, 2, end)
    assert killed.returncode == -signal.SIGKILL
    time.sleep(1)
    finished = [*out.rglob("counts.json"), *out.glob("*.tfrecord")]
    times = {path: path.stat().st_mtime_ns for path in finished if path.suffix == ".tfrecord"}
    assert len(finished) >= min(end, units)
    assert _processes_of(out) == []
    done = start(text, out, 2)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= min(end, units)
    assert contents(out) == whole
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def _units(text):
    from keras_bert.training import corpus_readers

    before, corpus_readers.UNIT_BYTES = corpus_readers.UNIT_BYTES, 2000
    try:
        return corpus_readers.cut_units(text, "blank_line")
    finally:
        corpus_readers.UNIT_BYTES = before


def _processes_of(folder):
    """Processes whose command names a folder; where there is no /proc, none are seen."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on(text, tmp_path):
    """A limit on the size of files stands for the disk's end."""
    pytest.importorskip("resource", reason="no limits on this system")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({}, {}))\n"
    command = "import sys; from keras_bert.cli import main; sys.exit(main(sys.argv[1:]))"
    flags = ["corpus", "build", "--input", text, "--vocab", text.parent / "vocab.txt", "--max-length", "32"]
    out = tmp_path / "corpus"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(program):
        words = [sys.executable, "-c", program, *map(str, flags), "--out", str(out), "--workers", "1"]
        return subprocess.run(words, env=environment, capture_output=True, text=True)

    for size in (6_000, 30_000):  # the first pass, and the second
        done = run(limited.format(size, size) + command)
        assert done.returncode == 1
        lines = done.stderr.strip().splitlines()
        assert "Expected room for the results" in lines[-1], done.stderr
        assert not list(out.glob("*.tfrecord"))
        assert not [path for path in out.rglob("*.tmp")]
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["documents"] == 122
    open_corpus(out).verify()


def give(state, value):
    return state + value


def fail(state, value):
    raise ValueError(f"no {value}")


def end_at_once(state, value):
    os.kill(os.getpid(), signal.SIGKILL)


def start_with(value):
    return value


@pytest.mark.slow
def test_workers():
    with Workers(2, start_with, (100,)) as workers:
        assert sorted(workers.map(give, [(n,) for n in range(7)])) == [(n, 100 + n) for n in range(7)]
        assert list(workers.map(give, [])) == []
        with pytest.raises(ValueError, match="no 3"):
            list(workers.map(fail, [(3,)]))
    with Workers(1, start_with, (1,)) as workers, pytest.raises(RuntimeError, match="ended with signal SIGKILL"):
        list(workers.map(end_at_once, [(1,)]))


@pytest.mark.slow
@pytest.mark.skipif(not DATA.exists(), reason=f"{DATA} is not there")
@pytest.mark.parametrize("objective", ["nsp", "sop", "mlm"])
def test_packing_wastes_little_of_real_books(tmp_path, objective):
    from keras_bert.text import Tokenizer

    tokenizer = Tokenizer.from_vocab_file(DATA / "vocabs" / "bert-base-uncased-vocab.txt")
    settings = CorpusSettings(objective=objective, packed=True)
    corpus = build_corpus(DATA / "text_books_en" / "*.gz", tokenizer, tmp_path / "corpus", settings, workers=0)
    assert corpus.manifest["padding_part"] <= 0.03


@pytest.mark.slow
def test_beam_writes_the_same_bytes(text, tmp_path):
    pytest.importorskip("apache_beam", reason='apache-beam is not installed: pip install "keras-bert[beam]"')
    program = PROGRAM.replace("workers=int(workers)", "beam_options=['--runner=DirectRunner']")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    command = [sys.executable, "-c", program, text, tmp_path / "beam", "0", "-1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert start(text, tmp_path / "corpus", 0).returncode == 0
    assert contents(tmp_path / "beam") == contents(tmp_path / "corpus")
