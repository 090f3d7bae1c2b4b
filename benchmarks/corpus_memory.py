"""Peak memory of building a corpus, of the parent and the largest worker, for corpora of growing size.

    python benchmarks/corpus_memory.py VOCAB [--megabytes 64 256 1024 2048] [--workers 2] [--deduplicate near]

The text is made: documents of random words, each of another. Prints one JSON line; the aim is at most 1 GB a worker,
whatever the size. Linux only: it reads the peak of each process from /proc.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import sys
from keras_bert.text import Tokenizer
from keras_bert.training.corpus import CorpusSettings
from keras_bert.training.corpus_build import build_corpus

text, vocab, out, workers, deduplicate, packed = sys.argv[1:]
settings = CorpusSettings(deduplicate=deduplicate, packed=packed == "True")
build_corpus(text, Tokenizer.from_vocab_file(vocab), out, settings, workers=int(workers))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("vocab")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 256, 1024, 2048])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", help="where there is room for three times the text (default: the system's)")
    parser.add_argument("--deduplicate", default="exact")
    parser.add_argument("--packed", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for megabytes in arguments.megabytes:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            text = Path(folder, "text.txt")
            _write_text(text, arguments.vocab, megabytes * 1_000_000)
            start = time.perf_counter()
            words = [text, arguments.vocab, Path(folder, "corpus"), arguments.workers, arguments.deduplicate]
            peaks = _peaks([sys.executable, "-c", PROGRAM, *map(str, words), str(arguments.packed)])
            rows.append(
                {
                    "megabytes": megabytes,
                    "seconds": round(time.perf_counter() - start, 1),
                    "parent_megabytes": round(peaks[0]),
                    "worker_megabytes": round(max(peaks[1:], default=0)),
                }
            )
            print(rows[-1], file=sys.stderr)
    print(json.dumps({"benchmark": "corpus_memory", "workers": arguments.workers, "peaks": rows}))


def _write_text(path: Path, vocab: str, size: int) -> None:
    draw = random.Random(0)
    with open(vocab, encoding="utf-8") as file:
        words = [line.strip() for line in file if re.fullmatch("[a-z]{2,}", line.strip())]
    sentences = [" ".join(draw.choices(words, k=draw.randint(4, 30))).capitalize() + "." for _ in range(50_000)]
    with open(path, "w", encoding="utf-8") as file:
        written = 0
        while written < size:
            text = "\n".join(draw.choices(sentences, k=draw.randint(2, 60))) + "\n\n"
            written += file.write(text)


def _peaks(command: list[str]) -> list[float]:
    """The highest resident memory of a command and of each of its children, in megabytes."""
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    peaks: dict[int, float] = {}
    ended = threading.Event()

    def look():
        while not ended.wait(0.1):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            try:
                for pid in (process.pid, *map(int, children.read_text().split())):
                    status = Path(f"/proc/{pid}/status").read_text()
                    if found := re.search(r"VmHWM:\s+(\d+)", status):
                        peaks[pid] = max(peaks.get(pid, 0), int(found[1]) * 1024 / 1e6)
            except OSError:
                continue

    watcher = threading.Thread(target=look)
    watcher.start()
    error = process.stderr.read()
    code = process.wait()
    ended.set()
    watcher.join()
    if code:
        raise SystemExit(error.decode("utf-8", "replace")[-2000:])
    return [peaks.pop(process.pid), *peaks.values()]


if __name__ == "__main__":
    main()
