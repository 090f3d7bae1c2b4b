"""Fine-tuning as a transformers/PyTorch user writes it: the loop that `keras-bert finetune` is measured against.

    python benchmarks/finetune_torch.py TASK --checkpoint DIR --train FILE --dev FILE [--columns text=sentence] ...

TASK is classifier, regression, token_classifier, question_answerer or multiple_choice. Fast tokenizer, everything
tokenized before the first step, batches shuffled every epoch and padded to their longest, float32, AdamW (weight decay
0.01 except on biases and LayerNorm), linear warm-up over a tenth of the steps, linear decay to 0, clipping at 1.0.
Seconds and examples a second count the training steps alone, and examples a second leave out the first of them. The
scores are those of the last epoch. Prints one JSON line.
"""

import argparse
import collections
import csv
import gzip
import json
import pathlib
import re
import string
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import transformers

WARM_STEPS = 5  # not counted in examples a second
MAX_ANSWER_TOKENS = 30  # as in Google's run_squad.py
HEADS = {
    "classifier": transformers.AutoModelForSequenceClassification,
    "regression": transformers.AutoModelForSequenceClassification,
    "token_classifier": transformers.AutoModelForTokenClassification,
    "question_answerer": transformers.AutoModelForQuestionAnswering,
    "multiple_choice": transformers.AutoModelForMultipleChoice,
}


@dataclass
class Task:
    """What the loop needs to know. `score` takes the dev set's logits, one array a feature, and returns the metrics."""

    train: list[dict]
    dev: list[dict]
    examples: int
    head: dict
    collate: Callable
    score: Callable[[list[np.ndarray]], dict]


# ---- files


def open_text(path: str):
    opened = gzip.open if path.endswith(".gz") else open
    # Only "\n" ends a line: some reviews hold a bare "\r".
    return opened(path, "rt", encoding="utf-8", newline="\n")


def read_rows(path: str, names: dict[str, str], most: int | None) -> list[dict]:
    """The first `most` rows of a TSV or JSONL file, `names` mapping our columns to the file's."""
    with open_text(path) as file:
        if ".jsonl" in path:
            rows = [json.loads(line) for line in file]
        else:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = ("text", "text_pair", "label", "question", "choices")
    return [{column: nested(row, names.get(column, column)) for column in columns} for row in rows[:most]]


def nested(value, name: str):
    """`question.choices.text` of a JSON object: through dictionaries, and through every member of a list."""
    for key in name.split("."):
        value = [member[key] for member in value] if isinstance(value, list) else value.get(key)
        if value is None:
            return None
    return value


def read_sentences(path: str, most: int | None) -> list[tuple[list[str], list[str]]]:
    """Words and tags of a CoNLL file: the first and the last column, blank lines between sentences."""
    sentences = [([], [])]
    with open_text(path) as file:
        for line in file:
            if line.strip():
                columns = re.split(r"[\t ]+", line.rstrip("\r\n"))
                sentences[-1][0].append(columns[0])
                sentences[-1][1].append(columns[-1])
            elif sentences[-1][0]:
                sentences.append(([], []))
    return [sentence for sentence in sentences if sentence[0]][:most]


def read_questions(path: str, most: int | None) -> list[dict]:
    with open_text(path) as file:
        articles = json.load(file)["data"]
    paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
    questions = [{**asked, "context": paragraph["context"]} for paragraph in paragraphs for asked in paragraph["qas"]]
    return questions[:most]


# ---- tasks


def as_features(encoded, **more) -> list[dict]:
    names = ["input_ids", "token_type_ids", "attention_mask"]
    columns = {**{name: encoded[name] for name in names}, **more}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def sequence_task(arguments, tokenizer) -> Task:
    """Classification and regression, of one or two segments."""
    train = read_rows(arguments.train, arguments.columns, arguments.train_rows)
    dev = read_rows(arguments.dev, arguments.columns, None)
    regression = arguments.task == "regression"
    names = [] if regression else sorted({row["label"] for row in train})

    def labels_of(rows):
        return [float(row["label"]) if regression else names.index(row["label"]) for row in rows]

    def features(rows):
        segments = [[row[column] for row in rows] for column in ("text", "text_pair") if rows[0][column] is not None]
        encoded = tokenizer(*segments, truncation=True, max_length=arguments.max_length)
        return as_features(encoded, labels=labels_of(rows))

    def score(logits):
        import scipy.stats
        import sklearn.metrics

        logits, labels = np.stack(logits), labels_of(dev)
        if not regression:
            return {"accuracy": sklearn.metrics.accuracy_score(labels, logits.argmax(axis=1))}
        predicted = logits[:, 0]
        return {
            "pearson": scipy.stats.pearsonr(labels, predicted).statistic,
            "spearman": scipy.stats.spearmanr(labels, predicted).statistic,
            "mse": sklearn.metrics.mean_squared_error(labels, predicted),
        }

    head = {"num_labels": 1, "problem_type": "regression"} if regression else {"num_labels": len(names)}
    collate = transformers.DataCollatorWithPadding(tokenizer)
    return Task(features(train), features(dev), len(train), head, collate, score)


def token_task(arguments, tokenizer) -> Task:
    """A word's first piece carries its tag; the other pieces carry none. Words that were cut off count as O."""
    train, dev = read_sentences(arguments.train, arguments.train_rows), read_sentences(arguments.dev, None)
    names = sorted({tag for _, tags in train for tag in tags})
    ids = {name: index for index, name in enumerate(names)}

    def first_pieces(encoded, row):
        """(place, word) of each word that has a piece."""
        words = encoded.word_ids(row)
        return [(place, word) for place, word in enumerate(words) if word is not None and word != words[place - 1]]

    def encode(sentences):
        words = [words for words, _ in sentences]
        return tokenizer(words, is_split_into_words=True, truncation=True, max_length=arguments.max_length)

    def features(sentences, encoded):
        labels = [[-100] * len(pieces) for pieces in encoded["input_ids"]]
        for row, (_, tags) in enumerate(sentences):
            for place, word in first_pieces(encoded, row):
                labels[row][place] = ids.get(tags[word], -100)
        return as_features(encoded, labels=labels)

    dev_encoded = encode(dev)

    def score(logits):
        import seqeval.metrics

        truth, predicted = [tags for _, tags in dev], [["O"] * len(tags) for _, tags in dev]
        for row, scores in enumerate(logits):
            best = scores.argmax(axis=1)
            for place, word in first_pieces(dev_encoded, row):
                predicted[row][word] = names[best[place]]
        return {"f1": seqeval.metrics.f1_score(truth, predicted, zero_division=0)}

    collate = transformers.DataCollatorForTokenClassification(tokenizer)
    train_features = features(train, encode(train))
    return Task(train_features, features(dev, dev_encoded), len(train), {"num_labels": len(names)}, collate, score)


def choice_task(arguments, tokenizer) -> Task:
    """Each choice is packed behind its question; labels are numbers from 0 or letters from A."""
    train = read_rows(arguments.train, arguments.columns, arguments.train_rows)
    dev = read_rows(arguments.dev, arguments.columns, None)

    def labels_of(rows):
        labels = [str(row["label"]) for row in rows]
        return [int(label) if label.isdigit() else string.ascii_uppercase.index(label) for label in labels]

    def encode(row):
        questions = [row["question"]] * len(row["choices"])
        return tokenizer(questions, row["choices"], truncation=True, max_length=arguments.max_length)

    def features(rows):
        return [{**encode(row), "labels": label} for row, label in zip(rows, labels_of(rows), strict=True)]

    def score(logits):
        return {"accuracy": np.mean(np.stack(logits).argmax(axis=1) == labels_of(dev))}

    collate = transformers.DataCollatorForMultipleChoice(tokenizer)
    return Task(features(train), features(dev), len(train), {}, collate, score)


def question_task(arguments, tokenizer) -> Task:
    """Long contexts as windows that overlap by `--stride` tokens; where a window lacks the answer, it is at [CLS]."""
    train, dev = read_questions(arguments.train, arguments.train_rows), read_questions(arguments.dev, None)

    def encode(questions):
        """The encoded windows, each one's question, and the places in the context that its tokens have."""
        asked, contexts = zip(
            *((question["question"].strip(), question["context"]) for question in questions), strict=True
        )
        cut = {"truncation": "only_second", "max_length": arguments.max_length, "stride": arguments.stride}
        encoded = tokenizer(asked, contexts, **cut, return_overflowing_tokens=True, return_offsets_mapping=True)
        offsets = [
            [span if segment == 1 else None for span, segment in zip(spans, encoded.sequence_ids(window), strict=True)]
            for window, spans in enumerate(encoded["offset_mapping"])
        ]
        return encoded, encoded["overflow_to_sample_mapping"], offsets

    def answer_places(question, offsets):
        if not question["answers"]:
            return 0, 0
        start = question["answers"][0]["answer_start"]
        end = start + len(question["answers"][0]["text"])
        context = [span for span in offsets if span]
        places = [place for place, span in enumerate(offsets) if span and span[0] < end and span[1] > start]
        whole = bool(context) and context[0][0] <= start and end <= context[-1][1]
        return (places[0], places[-1]) if whole and places else (0, 0)

    encoded, owners, offsets = encode(train)
    places = [answer_places(train[owner], spans) for owner, spans in zip(owners, offsets, strict=True)]
    starts, ends = zip(*places, strict=True)
    train_features = as_features(encoded, start_positions=starts, end_positions=ends)
    dev_encoded, dev_owners, dev_offsets = encode(dev)
    may_be_unanswerable = any(not question["answers"] for question in dev)

    def score(logits):
        best: dict[int, tuple[float, str]] = {}
        null = collections.defaultdict(lambda: np.inf)
        for owner, spans, scores in zip(dev_owners, dev_offsets, logits, strict=True):
            scores = scores[: len(spans)]
            pairs = scores[:, None, 0] + scores[None, :, 1]
            null[owner] = min(null[owner], float(pairs[0, 0]))
            inside = np.array([span is not None for span in spans])
            length = np.arange(len(spans))[None, :] - np.arange(len(spans))[:, None]
            allowed = inside[:, None] & inside[None, :] & (length >= 0) & (length < MAX_ANSWER_TOKENS)
            start, end = np.unravel_index(np.where(allowed, pairs, -np.inf).argmax(), pairs.shape)
            if allowed[start, end] and (owner not in best or pairs[start, end] > best[owner][0]):
                best[owner] = float(pairs[start, end]), dev[owner]["context"][spans[start][0] : spans[end][1]]
        figures = []
        for index, question in enumerate(dev):
            value, answer = best.get(index, (-np.inf, ""))
            answer = "" if may_be_unanswerable and null[index] > value else answer
            figures.append(squad_scores(answer, [gold["text"] for gold in question["answers"]] or [""]))
        exact, f1 = np.mean(figures, axis=0)
        return {"exact_match": 100 * exact, "f1": 100 * f1}

    collate = transformers.DataCollatorWithPadding(tokenizer)
    return Task(train_features, as_features(dev_encoded), len(train), {}, collate, score)


def squad_scores(answer: str, golds: list[str]) -> tuple[float, float]:
    """Exact match and F1 by the rules of the official scorer, the best over the gold answers."""

    def words(text):
        text = "".join(character for character in text.lower() if character not in string.punctuation)
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    def f1(predicted, gold):
        common = sum((collections.Counter(predicted) & collections.Counter(gold)).values())
        return 2 * common / (len(predicted) + len(gold)) if predicted and gold else float(predicted == gold)

    predicted = words(answer)
    return max(float(predicted == words(gold)) for gold in golds), max(f1(predicted, words(gold)) for gold in golds)


TASKS = {
    "classifier": sequence_task,
    "regression": sequence_task,
    "token_classifier": token_task,
    "question_answerer": question_task,
    "multiple_choice": choice_task,
}


# ---- the loop


def make_optimizer(model, learning_rate: float, steps: int):
    spared = [value for name, value in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    kept = [value for name, value in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": kept, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, eps=1e-6)
    return optimizer, transformers.get_linear_schedule_with_warmup(optimizer, int(steps * 0.1), steps)


@torch.no_grad()
def predict(model, features: list[dict], collate, batch_size: int) -> list[np.ndarray]:
    model.eval()
    order = sorted(range(len(features)), key=lambda row: len(features[row]["input_ids"]))
    logits: list = [None] * len(features)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        outputs = model(**collate([features[row] for row in rows]))
        spans = "start_logits" in outputs
        batch = torch.stack([outputs.start_logits, outputs.end_logits], dim=-1) if spans else outputs.logits
        for row, values in zip(rows, batch.numpy(), strict=True):
            logits[row] = values
    return logits


def finetune(arguments) -> dict:
    torch.set_num_threads(arguments.threads)
    transformers.set_seed(arguments.seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.checkpoint)
    start = time.perf_counter()
    task = TASKS[arguments.task](arguments, tokenizer)
    tokenize_seconds = time.perf_counter() - start
    model = HEADS[arguments.task].from_pretrained(arguments.checkpoint, **task.head)
    loader = torch.utils.data.DataLoader(task.train, arguments.batch_size, shuffle=True, collate_fn=task.collate)
    optimizer, schedule = make_optimizer(model, arguments.learning_rate, arguments.epochs * len(loader))

    curve, ends, sizes, train_seconds = [], [], [], 0.0
    for epoch in range(arguments.epochs):
        model.train()
        losses, start = [], time.perf_counter()
        for batch in loader:
            loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            sizes.append(len(batch["input_ids"]))
            ends.append(train_seconds + time.perf_counter() - start)
        train_seconds = ends[-1]
        scores = task.score(predict(model, task.dev, task.collate, arguments.batch_size))
        scores = {name: float(value) for name, value in scores.items()}
        curve.append({"epoch": epoch + 1, "loss": float(np.mean(losses)), **scores})
    warm = min(WARM_STEPS, len(ends) - 1)
    return {
        "task": arguments.task,
        "seed": arguments.seed,
        "examples": task.examples,
        "steps": len(ends),
        "tokenize_seconds": tokenize_seconds,
        "train_seconds": train_seconds,
        "first_step_seconds": ends[0],
        "examples_per_second": sum(sizes[warm:]) / (ends[-1] - ends[warm - 1] if warm else ends[-1]),
        **scores,
        "peak_memory_bytes": peak_memory_bytes(),
        "curve": curve,
    }


def peak_memory_bytes() -> int:
    # Not resource.getrusage: its peak is never below what the parent process had.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--checkpoint", required=True, help="a folder in Hugging Face's format")
    parser.add_argument("--train", required=True)
    parser.add_argument("--dev", required=True)
    parser.add_argument("--columns", metavar="NAME=COLUMN,...", help="as of keras-bert finetune")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--stride", type=int, default=64, help="tokens that windows of a long context share")
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-rows", type=int, help="the first N rows, sentences or questions of the file")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    pairs = arguments.columns.split(",") if arguments.columns else []
    arguments.columns = dict(pair.split("=", 1) for pair in pairs)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(json.dumps(finetune(arguments)))


if __name__ == "__main__":
    main()
