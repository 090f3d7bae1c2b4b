"""For each task of fine-tuning: files of a few learnable examples, and the tiny checkpoint that the runs start from."""

import gzip
import json
import random
from pathlib import Path

from tiny_classifier import VOCABULARY

import keras_bert as kb

WORDS = ["the", "a", "cat", "dog", "mat", "sat", "ran", "on", "in", "我", "爱", "很", "and", "was"]
LENGTH = 24
TRAINING = ["--epochs", "6", "--batch-size", "8", "--max-length", "16", "--learning-rate", "0.02"]
# By task: the suffix of its files, and the flags that it needs besides.
SUFFIXES = {
    "classifier": ".tsv.gz",
    "multi_label": ".jsonl",
    "regression": ".csv",
    "token_classifier": ".conll",
    "question_answerer": ".json.gz",
    "multiple_choice": ".jsonl.gz",
    "embedder": ".tsv",
    "masked_lm": ".txt.gz",
}
FLAGS = {
    "regression": ["--columns", "text=first,text_pair=second,label=score"],
    "question_answerer": ["--max-length", str(LENGTH), "--stride", "4"],
}


def save_pretrained(folder: Path) -> Path:
    """A pretraining model of one layer, in the package's own format."""
    config = kb.BertConfig(len(VOCABULARY), 16, 1, 2, 32, max_position_embeddings=LENGTH)
    model = kb.build_pretrainer(kb.build_encoder(config))
    kb.save_model_folder(kb.ModelFolder(model, kb.Tokenizer(VOCABULARY), "pretraining", LENGTH), folder)
    return folder


def write_files(task: str, folder: Path) -> dict[str, Path]:
    """The paths of "train" (40 examples) and "dev" (15)."""
    files = {}
    for seed, (name, count) in enumerate((("train", 40), ("dev", 15))):
        draw = random.Random(seed)
        text = _WRITERS[task](draw, count)
        files[name] = write(folder / f"{name}{SUFFIXES[task]}", text)
    return files


def write(path: Path, text: str) -> Path:
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")


def words(draw, least=2, most=6) -> str:
    return " ".join(draw.choices(WORDS, k=draw.randint(least, most)))


def _classifier(draw, count):
    rows = ((words(draw), draw.choice(["bad", "good"])) for _ in range(count))
    return "text\tlabel\n" + "".join(f"{text} {label}\t{label}\n" for text, label in rows)


def _multi_label(draw, count):
    given = [[name for name in ("good", "bad", "坏") if draw.random() < 0.5] for _ in range(count)]
    rows = [{"text": " ".join([words(draw), *names]), "labels": names} for names in given]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _regression(draw, count):
    rows = ((words(draw), draw.randint(0, 3)) for _ in range(count))
    return "first,second,score\n" + "".join(
        f'"{text}","{text} {" ".join(["good"] * score)}",{score}.5\n' for text, score in rows
    )


def _token_classifier(draw, count):
    tags = {"cat": "B-ANI", "dog": "B-ANI", "mat": "B-OBJ"}
    sentences = (words(draw, 3, 7).split() for _ in range(count))
    return "\n".join("".join(f"{word} x {tags.get(word, 'O')}\n" for word in sentence) for sentence in sentences)


def _question_answerer(draw, count):
    entries = []
    for number in range(count):
        possible, answer = number % 4 != 0, draw.choice(["good", "坏"])
        context = words(draw, 5, 20) + f" {answer if possible else 'ran'} " + words(draw, 5, 20)
        answers = [{"text": answer, "answer_start": context.index(answer)}] if possible else []
        qas = [{"id": f"q{number}", "question": "the cat ?", "answers": answers, "is_impossible": not possible}]
        entries.append({"context": context, "qas": qas})
    return json.dumps({"version": "v2.0", "data": [{"title": "t", "paragraphs": entries}]}, ensure_ascii=False)


def _multiple_choice(draw, count):
    rows = []
    for number in range(count):
        choices = ["bad", "the mat", "坏"][: 2 + number % 2]
        label = draw.randrange(len(choices))
        choices[label] = "good"
        rows.append({"question": words(draw), "choices": choices, "label": label})
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _embedder(draw, count):
    rows = ((words(draw), draw.randint(1, 5)) for _ in range(count))
    return "text\ttext_pair\tlabel\n" + "".join(f"{text}\t{text}{' bad' * n}\t{n}\n" for text, n in rows)


def _masked_lm(draw, count):
    return "\n".join(f"{words(draw, 4, 20)}.\n{words(draw, 4, 30)}.\n" for _ in range(count))


_WRITERS = {
    "classifier": _classifier,
    "multi_label": _multi_label,
    "regression": _regression,
    "token_classifier": _token_classifier,
    "question_answerer": _question_answerer,
    "multiple_choice": _multiple_choice,
    "embedder": _embedder,
    "masked_lm": _masked_lm,
}
