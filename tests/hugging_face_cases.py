"""Checkpoints as transformers writes them, made from their tensors' names alone, so that no test needs torch.

golden/hugging_face_golden.json, made by golden/hugging_face_make_golden.py, holds for each case transformers' own
config.json, the names and shapes of its tensors, and what its model answers when every tensor is filled by `fill`.
"""

import json
import pathlib
import zlib

import numpy as np
import safetensors.numpy

GOLDEN = pathlib.Path(__file__).parent / "golden" / "hugging_face_golden.json"

SMALL = {
    "vocab_size": 29,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
SMALL_DISTILBERT = {
    "vocab_size": 29,
    "dim": 12,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 20,
    "max_position_embeddings": 16,
}

# Name: (class of transformers, fields of its config, task). Every field that changes a number has another value than
# its default in one case or another.
CASES = {
    "encoder": ("BertModel", SMALL, "encoder"),
    "odd_widths": (
        "BertModel",
        {**SMALL, "hidden_size": 15, "intermediate_size": 7, "num_attention_heads": 5, "num_hidden_layers": 1},
        "encoder",
    ),
    "one_token_type_relu": (
        "BertModel",
        {**SMALL, "type_vocab_size": 1, "hidden_act": "relu", "layer_norm_eps": 1e-5},
        "encoder",
    ),
    "five_token_types_silu": (
        "BertModel",
        {**SMALL, "type_vocab_size": 5, "hidden_act": "silu", "layer_norm_eps": 1e-2, "num_attention_heads": 1},
        "encoder",
    ),
    "gelu_new": ("BertForMaskedLM", {**SMALL, "hidden_act": "gelu_new", "layer_norm_eps": 1e-3}, "masked_lm"),
    "pretraining": ("BertForPreTraining", SMALL, "pretraining"),
    "masked_lm": ("BertForMaskedLM", SMALL, "masked_lm"),
    "lm_head": ("BertLMHeadModel", SMALL, "masked_lm"),
    "next_sentence": ("BertForNextSentencePrediction", SMALL, "next_sentence"),
    "classifier": ("BertForSequenceClassification", {**SMALL, "num_labels": 3}, "classifier"),
    "regressor": ("BertForSequenceClassification", {**SMALL, "num_labels": 1}, "classifier"),
    "token_classifier": ("BertForTokenClassification", {**SMALL, "num_labels": 5}, "token_classifier"),
    "question_answerer": ("BertForQuestionAnswering", SMALL, "question_answerer"),
    "multiple_choice": ("BertForMultipleChoice", SMALL, "multiple_choice"),
    "distilbert": ("DistilBertModel", SMALL_DISTILBERT, "encoder"),
    "distilbert_masked_lm": (
        "DistilBertForMaskedLM",
        {**SMALL_DISTILBERT, "activation": "relu", "sinusoidal_pos_embds": True},
        "masked_lm",
    ),
    "distilbert_classifier": (
        "DistilBertForSequenceClassification",
        {**SMALL_DISTILBERT, "num_labels": 3, "seq_classif_dropout": 0.3},
        "classifier",
    ),
    "distilbert_token_classifier": (
        "DistilBertForTokenClassification",
        {**SMALL_DISTILBERT, "num_labels": 4},
        "token_classifier",
    ),
    "distilbert_question_answerer": ("DistilBertForQuestionAnswering", SMALL_DISTILBERT, "question_answerer"),
    "distilbert_multiple_choice": ("DistilBertForMultipleChoice", SMALL_DISTILBERT, "multiple_choice"),
}


def load_golden() -> dict:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def fill(name: str, shape) -> np.ndarray:
    """The values of a tensor, float32, from its name alone."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.normal(0, 0.3, shape)
    return (values + name.endswith(("LayerNorm.weight", "layer_norm.weight"))).astype("float32")


def make_inputs(config: dict, task: str) -> dict:
    """Ids, token types and mask, `(2, 7)`, or `(2, 3, 7)` for multiple choice; the second row is padded."""
    random = np.random.default_rng(5)
    shape = (2, 3, 7) if task == "multiple_choice" else (2, 7)
    mask = np.ones(shape, "int32")
    mask[1, ..., 4:] = 0
    return {
        "input_ids": random.integers(0, config["vocab_size"], shape).astype("int32"),
        "token_type_ids": random.integers(0, config.get("type_vocab_size", 2), shape).astype("int32"),
        "attention_mask": mask,
    }


def make_vocabulary(size: int) -> list[str]:
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{index}" for index in range(size - 5))]


def tensors_of(case: dict) -> dict:
    return {name: fill(name, shape) for name, shape in case["tensors"].items()}


def write_case(case: dict, folder: pathlib.Path, tensors: dict | None = None, **config) -> pathlib.Path:
    """Writes a case as a Hugging Face folder, with other tensors or fields of the config where they are given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**case["config"], **config}))
    safetensors.numpy.save_file(tensors or tensors_of(case), folder / "model.safetensors", metadata={"format": "pt"})
    pieces = make_vocabulary(case["config"]["vocab_size"])
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    return folder
