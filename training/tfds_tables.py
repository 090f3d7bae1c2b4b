"""Examples of TensorFlow Datasets as JSON-like records: `tfds:glue/sst2#train[:10%]`."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_bert.training.table_rows import TFDS_PREFIX, listed, place

# What TFDS calls the split that "dev" means here, in the order of preference.
_DEV_SPLITS = ("dev", "validation", "test")


def open_tfds(source: str, split: str = "train") -> tuple[str, Iterator[tuple[int, dict]]]:
    """The full name of `tfds:NAME` or `tfds:NAME#SPLIT`, and its examples with their numbers from 1.

    NAME and SPLIT are what `tfds.load` takes. Class numbers become class names, and -1 (not labelled) None. A data set
    that is in none of TFDS's folders (`TFDS_DATA_DIR`, or `~/tensorflow_datasets`) is downloaded by its library.

    Args:
        split: what is read where the source names none; "dev" means `validation`, or else `test`.

    Raises:
        ValueError: no such data set or split.
        FileNotFoundError: a data set that is not there and cannot be downloaded.
    """
    import tensorflow_datasets as tfds

    name, marked, given = source.removeprefix(TFDS_PREFIX).partition("#")
    try:
        builder = tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except Exception as error:  # the code of a data set raises what it likes
        raise ValueError(
            f"{source}: expected a data set that TensorFlow Datasets knows, as tfds:NAME, tfds:NAME/CONFIG or "
            f"tfds:NAME#SPLIT. Received: {name!r} ({_first_line(error)})"
        ) from error
    if not builder.data_path.exists():
        try:
            builder.download_and_prepare()
        except Exception as error:
            raise FileNotFoundError(
                f"{source}: the data set is not in {builder.data_path}, and downloading it failed "
                f"({_first_line(error)}). Prepare it where there is a network, and name its folder with TFDS_DATA_DIR."
            ) from error
    if not marked:
        known = list(builder.info.splits)
        candidates = _DEV_SPLITS if split == "dev" else (split,)
        given = next((candidate for candidate in candidates if candidate in known), None)
        if given is None:
            raise ValueError(
                f"{source}: expected a split named {' or '.join(candidates)}. Received a data set with the splits "
                f"{listed(known)}; name one: {TFDS_PREFIX}{name}#{known[0] if known else 'SPLIT'}"
            )
    try:
        # Read once: a cache would only warn where reading ends early.
        dataset = builder.as_dataset(split=given, read_config=tfds.ReadConfig(try_autocache=False))
    except ValueError as error:
        raise ValueError(
            f"{source}: expected one of the splits {listed(list(builder.info.splits))}, or a part of one, as "
            f"train[:10%]. Received: {given!r} ({_first_line(error)})"
        ) from error
    full_name = f"{TFDS_PREFIX}{name}#{given}"
    return full_name, _records(full_name, dataset, builder.info.features)


def _records(name: str, dataset: Any, features: Any) -> Iterator[tuple[int, dict]]:
    import tensorflow_datasets as tfds

    for number, example in enumerate(tfds.as_numpy(dataset), start=1):
        try:
            yield number, _plain(example, features)
        except UnicodeDecodeError as error:
            raise ValueError(f"{place(name, number)}: expected UTF-8 text, but it is not ({error}).") from error


def _plain(value: Any, feature: Any) -> Any:
    """A value as `json.loads` would give it; a sequence of several features is a dict of lists, as TFDS has it."""
    import tensorflow_datasets as tfds

    if isinstance(feature, tfds.features.Sequence):
        if isinstance(value, dict):
            return {key: [_plain(item, feature.feature[key]) for item in value[key]] for key in value}
        rows = value.to_list() if hasattr(value, "to_list") else value  # a ragged value is no iterable
        return [_plain(item, feature.feature) for item in rows]
    if isinstance(feature, dict | tfds.features.FeaturesDict):
        return {key: _plain(value[key], feature[key]) for key in value}
    if isinstance(feature, tfds.features.ClassLabel):
        return None if value < 0 else feature.int2str(int(value))
    if isinstance(value, bytes):
        return value.decode("utf-8") if isinstance(feature, tfds.features.Text) else None
    if isinstance(value, np.floating):
        return float(str(value))  # 4.2 rather than 4.199999809265137, which is float32's 4.2 in full
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
