"""Text files to a corpus: two passes, shared out to worker processes.

The first pass turns units of text into ids (corpus_units.py), the plan between the passes says which document goes
where (corpus_plan.py), and the second pass makes the shards (corpus_shards.py). Every draw is a function of the seed
and what it is for, so that the number of workers and restarts change no byte.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_bert.atomic import atomic_file, in_use_by_one
from keras_bert.text import Tokenizer, save_vocabulary
from keras_bert.training.corpus import SCHEMA_VERSION, Corpus, CorpusSettings, open_corpus, tokenizer_rules
from keras_bert.training.corpus_beam import BeamWorkers
from keras_bert.training.corpus_duplicates import EXACT, NEAR, mark_duplicates
from keras_bert.training.corpus_plan import Plan
from keras_bert.training.corpus_readers import cut_units, inputs_fingerprint, is_large
from keras_bert.training.corpus_shards import ShardWriter
from keras_bert.training.corpus_units import UnitTokenizer, callable_name, find_callable, read_counts
from keras_bert.training.corpus_workers import Workers, default_workers

# A vocabulary that leaves more of the text unknown than this belongs to another language or another case.
UNKNOWN_WARNING_PART = 0.05

Progress = Callable[[int, int, dict], None]  # units and shards done, in all, figures

_logger = logging.getLogger("keras_bert")


def build_corpus(
    inputs: str | os.PathLike | Iterable[str | os.PathLike],
    tokenizer: Tokenizer,
    folder: str | os.PathLike,
    settings: CorpusSettings | None = None,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    sentence_splitter: Callable[[str], list[str]] | str | None = None,
    segmenter: Callable[[str], list[str]] | str | None = None,
    overwrite: bool = False,
    beam_options: Sequence[str] | None = None,
) -> Corpus:
    """Builds a corpus; a run that was stopped goes on, and one that is finished is opened.

    Unfinished work of other settings, another tokenizer or inputs that have changed since (name, size or time) is
    started over; a finished corpus of others is an error unless `overwrite`.

    Args:
      inputs: paths, glob patterns, `tfds:NAME`, `hf:NAME`. Text and Markdown as in text_files.py, `.jsonl`, `.gz`.
      workers: processes; None: one a processor, but none for a few megabytes, which are done before they are up; 0:
        none, all is done in this one.
      sentence_splitter: text to its sentences; a function that can be imported, or `module:function`.
      segmenter: text to its words, likewise: they say which pieces whole-word masking hides together, and no more.
      beam_options: flags of Apache Beam, which then does the work in place of `workers`; see corpus_beam.py.

    Raises:
      ValueError: inputs that are not what they should be, by file and line; too few documents; a folder that is in use.
      FileNotFoundError: an input that matches nothing.
    """
    folder = Path(folder)
    settings = settings or CorpusSettings()
    progress = progress or (lambda done, total, figures: None)
    units = cut_units(inputs, settings.documents)
    if workers is None:
        workers = default_workers() if is_large(units) else 0
    identity = _identity(units, tokenizer, settings, sentence_splitter, segmenter)
    if not overwrite and (finished := _finished(folder, identity)):
        return finished
    work = folder / ".work"
    work.mkdir(parents=True, exist_ok=True)
    with in_use_by_one(folder):
        _start_over_unless(work, identity)
        (folder / "manifest.json").unlink(missing_ok=True)
        prepared = (tokenizer.get_config(), settings, work)
        prepared += (callable_name(sentence_splitter), callable_name(segmenter))
        if beam_options is not None:
            workers_of = BeamWorkers(beam_options, work, _prepare, prepared)
        elif workers:
            workers_of = Workers(workers, _prepare, prepared)
        else:
            workers_of = Workers(0, _prepare, (tokenizer, settings, work, sentence_splitter, segmenter))
        with workers_of as pool:
            counts = _first_pass(pool, units, work, progress)
            plan, dropped = _make_plan(settings, work, counts)
            shards = _second_pass(pool, plan, folder, work, len(units), progress)
        manifest = _manifest(settings, tokenizer, identity, plan, counts, dropped, shards)
        save_vocabulary(tokenizer.vocabulary, folder / "vocab.txt")
        _remove_other_shards(folder, shards)
        with atomic_file(folder / "manifest.json") as scratch:
            scratch.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        shutil.rmtree(work, ignore_errors=True)
    if manifest["unknown_part"] > UNKNOWN_WARNING_PART:
        _logger.warning(
            "warning: %.0f%% of the tokens are [UNK]; the vocabulary does not fit the text",
            100 * manifest["unknown_part"],
        )
    return Corpus(folder, manifest, tokenizer, settings)


@dataclasses.dataclass
class _Worker:
    units: UnitTokenizer
    shards: ShardWriter


def _prepare(tokenizer, settings: CorpusSettings, work: Path, sentence_splitter, segmenter) -> _Worker:
    """What a worker process makes once."""
    if isinstance(tokenizer, dict):
        tokenizer = Tokenizer.from_config(tokenizer)
    splitter, segmenter = find_callable(sentence_splitter), find_callable(segmenter)
    return _Worker(
        UnitTokenizer(
            tokenizer,
            settings.documents,
            settings.text_field,
            splitter,
            segmenter,
            settings.deduplicate == "near",
        ),
        ShardWriter(settings, tokenizer, work, segmenter is not None),
    )


def _write_unit(worker: _Worker, unit, folder: Path) -> dict:
    return worker.units.write(unit, folder)


def _write_shard(worker: _Worker, shard: dict, number: int, path: Path) -> dict:
    return worker.shards.write(shard, number, path)


def _first_pass(pool: Workers, units, work: Path, progress: Progress) -> list[dict]:
    folders = [work / "units" / f"{number:06d}" for number in range(len(units))]
    counts = [read_counts(folder) for folder in folders]
    todo = [number for number, found in enumerate(counts) if found is None]
    total = 2 * len(units)  # the second pass is about as much work
    done = len(units) - len(todo)
    progress(done, total, {})
    for place, result in pool.map(_write_unit, [(units[number], folders[number]) for number in todo]):
        counts[todo[place]] = result
        done += 1
        progress(done, total, {})
    if not sum(found["documents"] for found in counts):
        raise ValueError(
            "Expected text. Received: inputs that are empty, blank or markup, or whose text gives no tokens."
        )
    return counts


def _make_plan(settings: CorpusSettings, work: Path, counts: list[dict]) -> tuple[dict, dict]:
    folders = [work / "units" / f"{number:06d}" for number in range(len(counts))]
    dropped = {"exact": 0, "near": 0, "empty": sum(found["empty"] for found in counts)}
    marks: list = [None] * len(folders)
    if settings.deduplicate != "none":
        threshold = settings.near_threshold if settings.deduplicate == "near" else None
        marks = mark_duplicates(folders, threshold, work)
        for name, mark in (("exact", EXACT), ("near", NEAR)):
            dropped[name] = sum(int(np.count_nonzero(marked == mark)) for marked in marks)
    return Plan(settings, folders, marks).write(work / "plan"), dropped


def _second_pass(pool: Workers, plan: dict, folder: Path, work: Path, before: int, progress: Progress) -> list[dict]:
    records = [_read_record(folder, work, shard) for shard in plan["shards"]]
    todo = [number for number, found in enumerate(records) if found is None]
    total = before + len(records)
    done = total - len(todo)
    progress(done, total, {})
    tasks = [(plan["shards"][number], number, folder / plan["shards"][number]["name"]) for number in todo]
    for place, record in pool.map(_write_shard, tasks):
        records[todo[place]] = record
        done += 1
        progress(done, total, {})
    return records


def _read_record(folder: Path, work: Path, shard: dict) -> dict | None:
    """What is known of a shard that is finished."""
    path = work / "shards" / f"{shard['name']}.json"
    if not path.exists() or not (folder / shard["name"]).exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    return record if (folder / shard["name"]).stat().st_size == record["bytes"] else None


def _identity(units, tokenizer, settings: CorpusSettings, sentence_splitter, segmenter) -> dict:
    """What a result belongs to."""
    inputs = inputs_fingerprint(units)
    return {
        "schema_version": SCHEMA_VERSION,
        "options": dataclasses.asdict(settings),
        "sentence_splitter": callable_name(sentence_splitter),
        "segmenter": callable_name(segmenter),
        "tokenizer": tokenizer.hash,
        "inputs": hashlib.sha256(json.dumps(inputs).encode()).hexdigest(),
    }


def _finished(folder: Path, identity: dict) -> Corpus | None:
    if not (folder / "manifest.json").exists():
        return None
    corpus = open_corpus(folder)
    others = [name for name in identity if corpus.manifest["identity"].get(name) != identity[name]]
    if others:
        options = identity["options"]
        changed = [name for name in options if corpus.manifest["options"].get(name) != options[name]]
        raise ValueError(
            f"Expected a folder without a corpus, or the one of the same inputs, tokenizer and options. Received: "
            f"{folder}, whose corpus has other {', '.join(changed or others)}; choose another folder, or overwrite it "
            "(--overwrite)."
        )
    return corpus


def _start_over_unless(work: Path, identity: dict) -> None:
    """Removes unfinished work that belongs to something else."""
    path = work / "identity.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if known == identity:
        return
    if known is not None:
        _logger.warning("the unfinished work in %s belongs to other inputs or options; it is started over", work.parent)
    for entry in work.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    with atomic_file(path) as scratch:
        scratch.write_text(json.dumps(identity), encoding="utf-8")


def _remove_other_shards(folder: Path, shards: list[dict]) -> None:
    names = {shard["name"] for shard in shards}
    for path in folder.glob("*-of-*.tfrecord"):
        if path.name not in names:
            path.unlink()


def _manifest(settings, tokenizer, identity, plan, counts, dropped, shards) -> dict:
    total = {name: sum(found[name] for found in counts) for name in ("tokens", "unknown")}
    examples, tokens = (sum(shard[name] for shard in shards) for name in ("examples", "tokens"))
    return {
        "schema_version": SCHEMA_VERSION,
        "options": dataclasses.asdict(settings),
        "tokenizer": tokenizer_rules(tokenizer),
        "documents": plan["documents"],
        "sentences": plan["sentences"],
        "text_tokens": plan["text_tokens"],
        "tokens": tokens,
        "examples": examples,
        "dropped": dropped,
        "unknown_part": total["unknown"] / max(total["tokens"], 1),
        "padding_part": 1 - tokens / max(examples * settings.max_length, 1),
        "shards": shards,
        "identity": identity,
    }
