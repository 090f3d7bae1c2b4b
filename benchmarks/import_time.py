"""What `import keras_bert` adds to importing Keras, and how long `keras-bert --help` takes.

    python benchmarks/import_time.py [--rounds 5]

Every measurement is a fresh process; medians. Needs `keras-bert` on the PATH. Prints one JSON line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

IMPORTS = """
import time; a = time.perf_counter(); import keras; b = time.perf_counter(); import keras_bert
print(b - a, time.perf_counter() - b)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    keras, added, help_seconds = [], [], []
    for _ in range(rounds):
        output = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True).stdout
        first, second = map(float, output.split())
        keras.append(first)
        added.append(second)
        start = time.perf_counter()
        subprocess.run(["keras-bert", "--help"], check=True, capture_output=True)
        help_seconds.append(time.perf_counter() - start)
    figures = {"import_keras": keras, "import_keras_bert_adds": added, "keras_bert_help": help_seconds}
    seconds = {name: round(statistics.median(values), 3) for name, values in figures.items()}
    print(json.dumps({"benchmark": "import_time", "seconds": seconds}))


if __name__ == "__main__":
    main()
