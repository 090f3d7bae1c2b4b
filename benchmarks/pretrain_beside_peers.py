"""Time to a held-out masked-LM loss, beside a transformers/PyTorch loop and KerasHub's MaskedLM task.

    python benchmarks/pretrain_beside_peers.py --text FILE... [--seconds 900] [--plot FILE]

All three train a model of the same size with the same vocabulary, learned from the text, on the same documents, each as
its own documentation has it: a corpus of packed rows through `pretrain`; run_mlm.py's blocks of 128 tokens with
DataCollatorForLanguageModeling; strings through BertMaskedLMPreprocessor. The loss is that of one set of masked rows of
held-out documents; seconds count from the start of training, evaluations left out. The peers train for --seconds, ours
for a third of that, its schedule included. Prints one JSON line; --plot writes the curves as SVG.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time

LENGTH, BATCH, VOCABULARY, HELD_OUT_EVERY = 128, 32, 8000, 20
SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
PEER_RATE = 1e-4  # Devlin et al. 2019, appendix A.2; after a warm-up of WARMUP steps it stays
WARMUP, EVALUATIONS = 100, 30
# Small batches take more steps in the time. A rate that falls to nothing may be as high.
OUR_SETTINGS = {"batch_size": 8, "learning_rate": 1e-3, "warmup": 0.05, "schedule": "linear"}


class Clock:
    """Seconds of training, without those of evaluating."""

    def __init__(self, seconds: float):
        self.seconds, self.curve = seconds, []
        self._start, self._out = time.perf_counter(), 0.0

    def now(self) -> float:
        return time.perf_counter() - self._start - self._out

    def due(self) -> bool:
        return self.now() >= self.seconds * (len(self.curve) + 1) / EVALUATIONS

    def evaluate(self, step: int, loss) -> None:
        started, seconds = time.perf_counter(), self.now()
        self.curve.append({"step": step, "seconds": seconds, "loss": loss()})
        print(json.dumps(self.curve[-1]), file=sys.stderr, flush=True)
        self._out += time.perf_counter() - started

    def over(self) -> bool:
        return self.now() >= self.seconds


def prepare(text: list[str], folder: pathlib.Path) -> None:
    """train.txt, vocab.txt, a corpus of packed rows, and heldout.npz with masked rows of documents of their own."""
    import numpy as np
    import tensorflow as tf

    from keras_bert.text import Tokenizer, learn_vocabulary, save_vocabulary
    from keras_bert.training.corpus import CorpusSettings
    from keras_bert.training.corpus_build import build_corpus
    from keras_bert.training.text_files import read_documents

    documents = list(read_documents(text))
    for name, part in (
        ("train", [document for place, document in enumerate(documents) if place % HELD_OUT_EVERY]),
        ("heldout", documents[::HELD_OUT_EVERY]),
    ):
        lines = "\n\n".join("\n".join(document) for document in part)
        (folder / f"{name}.txt").write_text(lines + "\n", encoding="utf-8")
    sentences = (sentence for document in documents for sentence in document)
    vocabulary = learn_vocabulary(sentences, VOCABULARY)
    save_vocabulary(vocabulary, folder / "vocab.txt")
    tokenizer = Tokenizer(vocabulary)
    rows = {"max_length": LENGTH, "objective": "mlm", "held_out": 0.0}
    build_corpus(folder / "train.txt", tokenizer, folder / "corpus", CorpusSettings(packed=True, **rows))
    static = CorpusSettings(masking="static", **rows)
    held_out = build_corpus(folder / "heldout.txt", tokenizer, folder / "heldout", static)
    columns: dict = {}
    for shard in held_out.shards("train"):
        for record in tf.data.TFRecordDataset(str(held_out.folder / shard["name"])).as_numpy_iterator():
            for name, feature in tf.train.Example.FromString(record).features.feature.items():
                values = feature.float_list.value or feature.int64_list.value
                columns.setdefault(name, []).append(list(values))
    np.savez(folder / "heldout.npz", **{name: np.array(column) for name, column in columns.items()})


def held_out_rows(folder: pathlib.Path, rows: int = 256):
    """Batches of masked rows: ids, mask, positions, labels and which of them count."""
    import numpy as np

    columns = np.load(folder / "heldout.npz")
    names = ("input_ids", "input_mask", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
    parts = [columns[name][:rows] for name in names]
    for start in range(0, len(parts[0]), BATCH):
        yield [part[start : start + BATCH].astype("int32") for part in parts]


def mean_loss(folder: pathlib.Path, log_probabilities) -> float:
    """Of the hidden tokens; `log_probabilities(ids, mask, positions)` gives (B, M, V)."""
    import numpy as np

    total = count = 0.0
    for ids, mask, positions, labels, used in held_out_rows(folder):
        said = np.take_along_axis(log_probabilities(ids, mask, positions), labels[..., None], axis=2)[..., 0]
        total, count = total - float((said * used).sum()), count + float(used.sum())
    return total / count


def ours(folder: pathlib.Path, seconds: float) -> list:
    import dataclasses

    import tensorflow as tf

    from keras_bert import BertConfig
    from keras_bert.training.corpus import open_corpus
    from keras_bert.training.pretrain import PretrainSettings, pretrain

    corpus = open_corpus(folder / "corpus")
    config = BertConfig(
        vocab_size=corpus.tokenizer.vocab_size,
        max_position_embeddings=LENGTH,
        hidden_dropout_prob=0.0,  # less than an epoch or few of them: it would only slow learning down
        attention_probs_dropout_prob=0.0,
        **SIZES,
    )
    settings = PretrainSettings(steps=1, **OUR_SETTINGS)
    marks: list = []
    trial = dataclasses.replace(settings, steps=60)
    pretrain(corpus, config, trial, progress=lambda *_: marks.append(time.perf_counter()))
    pace = (marks[-1] - marks[10]) / (len(marks) - 11)
    # As many steps as a third of the peers' time allows, with the whole schedule in them.
    steps = max(20, int(seconds / 3 / pace))
    clock = Clock(seconds / 3)

    def evaluate(model, step, figures):
        def log_probabilities(ids, mask, positions):
            inputs = {"input_ids": ids, "token_type_ids": 0 * ids, "attention_mask": mask}
            logits = model.model({**inputs, "masked_lm_positions": positions}, training=False)
            return tf.nn.log_softmax(logits).numpy()

        clock.evaluate(step, lambda: mean_loss(folder, log_probabilities))

    every = max(1, steps // EVALUATIONS)
    pretrain(corpus, config, dataclasses.replace(settings, steps=steps, evaluate_every=every), keep=evaluate)
    return clock.curve


def torch(folder: pathlib.Path, seconds: float) -> list:
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.BertTokenizerFast(str(folder / "vocab.txt"))
    lines = [line for line in (folder / "train.txt").read_text(encoding="utf-8").split("\n") if line]
    ids = [token for row in tokenizer(lines, return_attention_mask=False)["input_ids"] for token in row]
    blocks = [{"input_ids": ids[start : start + LENGTH]} for start in range(0, len(ids) - LENGTH, LENGTH)]
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=LENGTH, **SIZES)
    model = transformers.BertForMaskedLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEER_RATE, weight_decay=0.01)
    schedule = transformers.get_constant_schedule_with_warmup(optimizer, WARMUP)
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    loader = torch.utils.data.DataLoader(blocks, BATCH, shuffle=True, collate_fn=collate, drop_last=True)

    def log_probabilities(ids, mask, positions):
        with torch.no_grad():
            logits = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask)).logits
            places = torch.tensor(positions).long()[..., None].expand(-1, -1, logits.shape[-1])
            return torch.log_softmax(logits.gather(1, places), -1).numpy()

    clock, step = Clock(seconds), 0
    while not clock.over():
        for batch in loader:
            model.train()
            model(**batch).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            step += 1
            if clock.due():
                model.eval()
                clock.evaluate(step, lambda: mean_loss(folder, log_probabilities))
            if clock.over():
                break
    return clock.curve


def keras_hub(folder: pathlib.Path, seconds: float) -> list:
    import keras
    import keras_hub
    import numpy as np
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    vocabulary = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1]
    tokenizer = keras_hub.models.BertTokenizer(vocabulary, lowercase=True)
    masked = max(1, round(LENGTH * 0.15))
    preprocessor = keras_hub.models.BertMaskedLMPreprocessor(
        tokenizer, sequence_length=LENGTH, mask_selection_rate=0.15, mask_selection_length=masked
    )
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=len(vocabulary),
        num_layers=SIZES["num_hidden_layers"],
        num_heads=SIZES["num_attention_heads"],
        hidden_dim=SIZES["hidden_size"],
        intermediate_dim=SIZES["intermediate_size"],
        max_sequence_length=LENGTH,
    )
    model = keras_hub.models.BertMaskedLM(backbone, preprocessor=None)
    rate = keras.optimizers.schedules.PolynomialDecay(1e-6, WARMUP, PEER_RATE)  # a rise that then stays
    optimizer = keras.optimizers.AdamW(rate, weight_decay=0.01, epsilon=1e-6, global_clipnorm=1.0)
    probabilities = model.layers[-1].get_config()["activation"] == "softmax"
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=not probabilities)
    model.compile(optimizer=optimizer, loss=loss, weighted_metrics=[])
    # Sentences of a document joined to texts of about a row.
    texts = [""]
    for line in (folder / "train.txt").read_text(encoding="utf-8").split("\n"):
        if not line or len(texts[-1]) > 4 * LENGTH:
            texts.append("")
        texts[-1] += line + " "
    texts = [text for text in texts if text.strip()]
    dataset = tf.data.Dataset.from_tensor_slices(texts).shuffle(len(texts), seed=0).repeat().batch(BATCH)
    dataset = dataset.map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)

    def log_probabilities(ids, mask, positions):
        inputs = {"token_ids": ids, "padding_mask": mask, "mask_positions": positions, "segment_ids": 0 * ids}
        said = model(inputs, training=False)
        return np.log(np.maximum(said, 1e-30)) if probabilities else tf.nn.log_softmax(said).numpy()

    clock = Clock(seconds)

    class Watch(keras.callbacks.Callback):
        step = 0

        def on_train_batch_end(self, batch, logs=None):
            self.step += 1
            if clock.due():
                clock.evaluate(self.step, lambda: mean_loss(folder, log_probabilities))
            self.model.stop_training = clock.over()

    model.fit(dataset, steps_per_epoch=10**9, callbacks=[Watch()], verbose=0)
    return clock.curve


PACKAGES = {"keras_bert": ours, "torch": torch, "keras_hub": keras_hub}


def seconds_to(curve: list, loss: float) -> float:
    """When a curve first reaches a loss, by interpolation; infinite where it never does."""
    before = None
    for point in curve:
        if point["loss"] <= loss:
            if before is None or before["loss"] == point["loss"]:
                return point["seconds"]
            part = (before["loss"] - loss) / (before["loss"] - point["loss"])
            return before["seconds"] + part * (point["seconds"] - before["seconds"])
        before = point
    return math.inf


COLOURS = ("#1a6fd4", "#d9622b", "#2e8b57")
STYLE = """text { font: 11px sans-serif; fill: #666 } line { stroke: #ddd } rect { fill: #fff }
polyline { fill: none; stroke-width: 2 }"""


def plot(curves: dict) -> str:
    """The curves as an SVG that stands alone: the report's chart with colours and legend of its own."""
    from keras_bert.training.plots import Series, line_chart

    series = [Series(name, [(point["seconds"], point["loss"]) for point in curve]) for name, curve in curves.items()]
    chart = line_chart("Held-out loss", "seconds of training", "masked-LM loss, held out", series)
    drawing = chart[chart.index("<svg") : chart.index("</svg>")]
    styles = [f"polyline.series-{index} {{ stroke: {colour} }}" for index, colour in enumerate(COLOURS)]
    names = [
        f'<text x="240" y="{40 + 16 * index}" style="fill: {colour}">{name}</text>'
        for index, (name, colour) in enumerate(zip(curves, COLOURS, strict=False))
    ]
    head = f'<style>{STYLE} {" ".join(styles)}</style><rect width="100%" height="100%"/>'
    opening, _, rest = drawing.partition(">")
    return f'{opening} xmlns="http://www.w3.org/2000/svg" width="720">{head}{rest}{"".join(names)}</svg>\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", nargs="+", required=True)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--packages", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--plot", type=pathlib.Path)
    parser.add_argument("--child", choices=PACKAGES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(PACKAGES[arguments.child](arguments.folder, arguments.seconds)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments.text, pathlib.Path(folder))
        curves = {}
        for package in arguments.packages:
            command = [sys.executable, __file__, "--child", package, "--folder", folder, "--text", ""]
            output = subprocess.run(
                [*command, "--seconds", str(arguments.seconds)], stdout=subprocess.PIPE, text=True, check=True
            ).stdout
            curves[package] = json.loads(output.splitlines()[-1])
    report = {"benchmark": "pretrain_beside_peers", "seconds": arguments.seconds, "curves": curves}
    for peer in [package for package in curves if package != "keras_bert" and "keras_bert" in curves]:
        reached = min(point["loss"] for point in curves[peer])
        part = seconds_to(curves["keras_bert"], reached) / seconds_to(curves[peer], reached)
        report[f"part_of_the_time_of_{peer}"] = part if math.isfinite(part) else None
    if arguments.plot:
        arguments.plot.write_text(plot(curves), encoding="utf-8")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
