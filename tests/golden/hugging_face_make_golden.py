"""Makes hugging_face_golden.json: what transformers' BERT and DistilBERT answer, with weights that tests can make.

    pip install torch transformers && python tests/golden/hugging_face_make_golden.py

Made with transformers 5.23.0 and torch 2.13.0 on the CPU.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from hugging_face_cases import CASES, GOLDEN, fill, make_inputs


def reference_model(class_name: str, fields: dict):
    kind = getattr(transformers, class_name)
    model = kind(kind.config_class(**fields)).eval()
    model.config.architectures = [class_name]
    return model


def answers(model, inputs: dict, class_name: str) -> dict:
    """What the model says, as NumPy arrays by the names of transformers' outputs."""
    if class_name.startswith("Distil"):
        inputs = {name: value for name, value in inputs.items() if name != "token_type_ids"}
    with torch.no_grad():
        outputs = model(**{name: torch.tensor(value).long() for name, value in inputs.items()})
    names = ("last_hidden_state", "pooler_output", "logits", "start_logits", "end_logits")
    names += ("prediction_logits", "seq_relationship_logits")
    return {name: outputs[name].numpy() for name in names if outputs.get(name) is not None}


def make_case(class_name: str, fields: dict, task: str) -> dict:
    model = reference_model(class_name, fields)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(fill(name, tuple(parameter.shape))))
    outputs = answers(model, make_inputs(model.config.to_dict(), task), class_name)
    return {
        "config": model.config.to_dict(),
        "tensors": {name: list(parameter.shape) for name, parameter in model.named_parameters()},
        "outputs": {name: np.round(values.astype("float64"), 7).tolist() for name, values in outputs.items()},
    }


if __name__ == "__main__":
    cases = {name: make_case(*case) for name, case in CASES.items()}
    GOLDEN.write_text(json.dumps(cases, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(cases)} cases, {GOLDEN.stat().st_size} bytes")
