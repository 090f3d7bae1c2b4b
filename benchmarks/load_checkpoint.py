"""Seconds and peak memory of loading a BERT-base checkpoint in Hugging Face's format, each in a fresh process.

    python benchmarks/load_checkpoint.py [--rounds 3]

Memory is what the process has above what it had with TensorFlow imported, at its highest, over the size of the file.
Beside it, where they are installed: transformers (PyTorch), and KerasHub, which reads the encoder only.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

# Not resource.getrusage: its peak is never below what the parent process had.
MEASURE = r"""
import re, sys, time, json, os
memory = lambda key: int(re.search(key + r":\s*(\d+) kB", open("/proc/self/status").read())[1]) * 1024
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, {root!r})
{before}
base, start = memory("VmRSS"), time.perf_counter()
{load}
print(json.dumps(dict(seconds=time.perf_counter() - start, memory=memory("VmHWM") - base)))
"""
LOADERS = {
    "keras_bert": ("import tensorflow, keras, keras_bert as kb", "model = kb.load_checkpoint({path!r})"),
    "transformers": (
        "import torch, transformers; transformers.utils.logging.disable_progress_bar(); transformers.BertModel",
        # It maps the file and reads what is looked at; loading means the same for all when every weight is.
        "model = transformers.AutoModel.from_pretrained({path!r});"
        "[parameter.sum().item() for parameter in model.parameters()];"
        "transformers.AutoTokenizer.from_pretrained({path!r})",
    ),
    "keras_hub": (
        "import tensorflow, keras, keras_hub",
        "model = keras_hub.models.BertBackbone.from_preset({path!r});"
        "keras_hub.models.BertTokenizer.from_preset({path!r})",
    ),
}


def write_checkpoint(folder: pathlib.Path) -> int:
    """Writes a BERT-base with random weights; returns the size of its weights in bytes."""
    import keras_bert as kb

    config = kb.BertConfig()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(config.vocab_size - 5))]
    model = kb.ModelFolder(kb.build_encoder(config), kb.Tokenizer(pieces), "encoder", 512)
    kb.save_checkpoint(model, folder, "hf")
    return (folder / "model.safetensors").stat().st_size


def measure(loader: str, folder: pathlib.Path) -> dict | None:
    before, load = LOADERS[loader]
    root = str(pathlib.Path(__file__).resolve().parents[1])
    script = MEASURE.format(root=root, before=before, load=load.format(path=str(folder)))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    if done.returncode:
        print(f"{loader}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, "bert_base")
        size = write_checkpoint(folder)
        results = {loader: [measure(loader, folder) for _ in range(rounds)] for loader in LOADERS}
    report = {"benchmark": "load_checkpoint", "file_bytes": size}
    for loader, runs in results.items():
        runs = [run for run in runs if run]
        if runs:
            report[loader] = {
                "seconds": round(statistics.median(run["seconds"] for run in runs), 2),
                "memory_over_file": round(statistics.median(run["memory"] for run in runs) / size, 2),
            }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
