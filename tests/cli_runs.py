"""What the tests of the command line share: little data, a launcher as pip makes it, and runs in this process."""

import contextlib
import io
import random
import stat
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras_bert
from keras_bert import cli

ROOT = Path(keras_bert.__file__).resolve().parents[1]
TOPICS = {
    "sport": ["ball", "goal", "team", "match", "player", "score", "win", "league", "coach", "run"],
    "食物": ["bread", "soup", "salt", "pepper", "cook", "米饭", "面包", "cheese", "oven", "汤"],
}
COMMON = ["the", "a", "of", "and", "to", "in", "was", "it", "with", "very"]
TRAINING = ["--max-length", "16", "--batch-size", "8", "--learning-rate", "0.003"]


class Outcome(NamedTuple):
    status: int
    out: str
    err: str

    def last_error(self) -> str:
        return self.err.splitlines()[-1]


def run(*arguments) -> Outcome:
    """One command, in this process; standard input and the streams' terminals are not there."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            status = error.code
    return Outcome(status, out.getvalue(), err.getvalue())


def make_launcher(folder: Path) -> Path:
    """`keras-bert` as a console script; the package reads the name."""
    path = folder / "keras-bert"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "from keras_bert.cli import main\nsys.exit(main())\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def start(launcher: Path, *arguments, cwd: Path | None = None) -> subprocess.Popen:
    """A command in a process of its own."""
    return subprocess.Popen(
        [str(launcher), *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def make_data(folder: Path) -> Path:
    """text.txt of 60 documents, train.tsv of 60 rows and dev.tsv of 21."""
    draw = random.Random(5)

    def sentence(topic):
        words = [draw.choice(TOPICS[topic] if draw.random() < 0.5 else COMMON) for _ in range(draw.randint(4, 9))]
        return " ".join(words).capitalize() + "."

    topics = list(TOPICS)
    documents = [[sentence(draw.choice(topics)) for _ in range(draw.randint(2, 5))] for _ in range(60)]
    text = "\n\n".join("\n".join(document) for document in documents)
    (folder / "text.txt").write_text(text + "\n", encoding="utf-8")
    for name, count in (("train", 60), ("dev", 21)):
        rows = [f"{sentence(topic)}\t{topic}\n" for topic in draw.choices(topics, k=count)]
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "".join(rows), encoding="utf-8")
    return folder


def hidden(folder: Path) -> list[Path]:
    """What should not be left: files under temporary names."""
    return [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.endswith("_temp")]
