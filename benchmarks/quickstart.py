"""Time, memory and quality of `keras-bert quickstart`, from its own summary.

    python benchmarks/quickstart.py [FLAG ...]

Flags are handed to the command. Needs `keras-bert` on the PATH. Prints one JSON line.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run(["keras-bert", "quickstart", "--out", folder, *sys.argv[1:]], check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        summary = json.loads(Path(folder, "summary.json").read_text(encoding="utf-8"))
    pretraining, evaluation = summary["pretraining"]["evaluation"], summary["evaluation"]
    print(
        json.dumps(
            {
                "benchmark": "quickstart",
                "seconds": round(seconds, 1),
                "peak_memory_gb": round(summary["peak_memory_bytes"] / 1e9, 2),
                "stage_seconds": {stage["name"]: round(stage["seconds"], 1) for stage in summary["stages"]},
                "masked_lm_accuracy": pretraining["masked_lm_accuracy"],
                "unigram_accuracy": pretraining["unigram_accuracy"],
                "next_sentence_accuracy": pretraining["next_sentence_accuracy"],
                "accuracy": evaluation["accuracy"],
                "majority_accuracy": evaluation["majority_accuracy"],
                "tfidf_logistic_regression_accuracy": evaluation["tfidf_logistic_regression_accuracy"],
                "artifacts": [
                    {name: artifact[name] for name in ("name", "signature", "bytes", "max_abs_difference", "agreement")}
                    for artifact in summary["artifacts"]
                ],
            }
        )
    )


if __name__ == "__main__":
    main()
