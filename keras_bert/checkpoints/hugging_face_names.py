"""Where transformers' BERT and DistilBERT keep what the package has: tensor names, config fields, classes of heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from keras_bert.checkpoints.weights import Rule


def _dense(ours: str, theirs: str) -> list[Rule]:
    return [
        Rule(f"{ours}/kernel", (f"{theirs}.weight",), transposed=True),
        Rule(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def _norm(ours: str, theirs: str) -> list[Rule]:
    return [Rule(f"{ours}/gamma", (f"{theirs}.weight",)), Rule(f"{ours}/beta", (f"{theirs}.bias",))]


def _attention(theirs: tuple[str, str, str]) -> list[Rule]:
    ours = "block_{i}/attention/qkv"
    return [
        Rule(f"{ours}/kernel", tuple(f"{name}.weight" for name in theirs), transposed=True),
        Rule(f"{ours}/bias", tuple(f"{name}.bias" for name in theirs)),
    ]


def _embeddings(prefix: str) -> list[Rule]:
    return [
        Rule(f"embeddings/{name}_embeddings", (f"{prefix}embeddings.{name}_embeddings.weight",))
        for name in ("word", "position", "token_type")
    ] + _norm("embeddings/layer_norm", f"{prefix}embeddings.LayerNorm")


def _bert_rules(prefix: str) -> list[Rule]:
    layer = f"{prefix}encoder.layer.{{i}}"
    return [
        *_embeddings(prefix),
        *_attention(tuple(f"{layer}.attention.self.{name}" for name in ("query", "key", "value"))),
        *_dense("block_{i}/attention/output", f"{layer}.attention.output.dense"),
        *_norm("block_{i}/attention_norm", f"{layer}.attention.output.LayerNorm"),
        *_dense("block_{i}/feed_forward/intermediate", f"{layer}.intermediate.dense"),
        *_dense("block_{i}/feed_forward/output", f"{layer}.output.dense"),
        *_norm("block_{i}/feed_forward_norm", f"{layer}.output.LayerNorm"),
        *_dense("pooler", f"{prefix}pooler.dense"),
        Rule("masked_lm/bias", ("cls.predictions.bias",)),
        *_dense("masked_lm/transform", "cls.predictions.transform.dense"),
        *_norm("masked_lm/layer_norm", "cls.predictions.transform.LayerNorm"),
        *_dense("next_sentence", "cls.seq_relationship"),
    ]


def _distilbert_rules(prefix: str) -> list[Rule]:
    layer = f"{prefix}transformer.layer.{{i}}"
    return [
        *_embeddings(prefix),
        *_attention(tuple(f"{layer}.attention.{name}_lin" for name in "qkv")),
        *_dense("block_{i}/attention/output", f"{layer}.attention.out_lin"),
        *_norm("block_{i}/attention_norm", f"{layer}.sa_layer_norm"),
        *_dense("block_{i}/feed_forward/intermediate", f"{layer}.ffn.lin1"),
        *_dense("block_{i}/feed_forward/output", f"{layer}.ffn.lin2"),
        *_norm("block_{i}/feed_forward_norm", f"{layer}.output_layer_norm"),
        *_dense("pooler", "pre_classifier"),
        Rule("masked_lm/bias", ("vocab_projector.bias",)),
        *_dense("masked_lm/transform", "vocab_transform"),
        *_norm("masked_lm/layer_norm", "vocab_layer_norm"),
    ]


class Architecture(NamedTuple):
    """One `model_type` of transformers.

    `fields`: names of BertConfig's fields in its config.json, where they differ; `fixed`: fields that it has no name
    for; `pooler_act`: the activation of its pooler, which in DistilBERT is part of a head. `classes`: its class for
    each task; `tokenizer_class`: DistilBERT's returns no token types. `decoder`: the masked LM's output table, tied to
    the word embeddings. `ignored`: buffers, and copies of tied weights.
    """

    prefix: str
    rules: Callable[[str], list[Rule]]
    fields: Mapping[str, str]
    fixed: Mapping
    pooler_act: str
    classes: Mapping[str, str]
    tokenizer_class: str
    classifier_dropout: str
    decoder: str
    ignored: str


# transformers/models/bert/configuration_bert.py and modeling_bert.py
BERT = Architecture(
    prefix="bert.",
    rules=_bert_rules,
    fields={},
    fixed={},
    pooler_act="tanh",
    classes={
        "encoder": "BertModel",
        "pretraining": "BertForPreTraining",
        "masked_lm": "BertForMaskedLM",
        "next_sentence": "BertForNextSentencePrediction",
        "classifier": "BertForSequenceClassification",
        "token_classifier": "BertForTokenClassification",
        "question_answerer": "BertForQuestionAnswering",
        "multiple_choice": "BertForMultipleChoice",
    },
    tokenizer_class="BertTokenizer",
    classifier_dropout="classifier_dropout",
    decoder="cls.predictions.decoder",
    ignored=r"(bert\.)?embeddings\.(position_ids|token_type_ids)|cls\.predictions\.(decoder\.(weight|bias)|bias)",
)

# transformers/models/distilbert/configuration_distilbert.py and modeling_distilbert.py
DISTILBERT = Architecture(
    prefix="distilbert.",
    rules=_distilbert_rules,
    fields={
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
    },
    fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
    pooler_act="relu",
    classes={
        "encoder": "DistilBertModel",
        "masked_lm": "DistilBertForMaskedLM",
        "classifier": "DistilBertForSequenceClassification",
        "token_classifier": "DistilBertForTokenClassification",
        "question_answerer": "DistilBertForQuestionAnswering",
        "multiple_choice": "DistilBertForMultipleChoice",
    },
    tokenizer_class="DistilBertTokenizer",
    classifier_dropout="seq_classif_dropout",
    decoder="vocab_projector",
    ignored=r"(distilbert\.)?embeddings\.position_ids|vocab_projector\.weight",
)

ARCHITECTURES = {"bert": BERT, "distilbert": DISTILBERT}

# Further classes that hold what one of the above holds. BertLMHeadModel is the masked LM's head on a BERT that, as a
# decoder, would look at earlier tokens only; its config says so, and such a config is refused.
OTHER_CLASSES = {"BertLMHeadModel": "masked_lm"}

# The last layer is called alike in all tasks; the class tells them apart.
LOGITS = {
    "classifier": "classifier",
    "token_classifier": "classifier",
    "multiple_choice": "classifier",
    "question_answerer": "qa_outputs",
}


def rules_of(architecture: Architecture, prefix: str, task: str) -> list[Rule]:
    """The rules for one task's model, with `prefix` before the encoder's names."""
    rules = architecture.rules(prefix)
    return rules + _dense("logits", LOGITS[task]) if task in LOGITS else rules
