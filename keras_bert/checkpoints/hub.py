"""Checkpoints by their id on the Hugging Face hub, through huggingface_hub: its cache, its offline mode, its token."""

from __future__ import annotations

import errno
import glob
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path

# A repository's name, or user/name; what else a user may type, such as ./folder or C:\folder, is a path.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)

# What the formats read beside the weights: of transformers and this package, in the repository itself or in the folder
# of a sentence-transformers module, such as 1_Pooling; and of a KerasHub preset.
_FOLDER = r"(\d+_\w+/)?"
_SMALL_FILES = re.compile(
    rf"{_FOLDER}(config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|sentence_\w+_config)\.json"
    rf"|{_FOLDER}vocab\.txt|(modules|config_sentence_transformers|bert_config|keras_bert)\.json"
    r"|(metadata|task|preprocessor)\.json|assets/tokenizer/[\w.]+",
    re.ASCII,
)
# The weights of one folder, by format; the first that a folder has are fetched, and the copies in others left there.
_WEIGHTS = (
    (r"model\.safetensors",),
    (r"model\.safetensors\.index\.json", r"model-\d+-of-\d+\.safetensors"),
    (r"pytorch_model\.bin",),
    (r"pytorch_model\.bin\.index\.json", r"pytorch_model-\d+-of-\d+\.bin"),
    (r"(model|task)\w*\.weights\.(h5|json)",),
    (r"model\.keras",),
    (r"[\w.-]*\.ckpt(-\d+)?\.(index|data-\d+-of-\d+)",),
)

_logger = logging.getLogger("keras_bert")


def is_hub_id(text: str | os.PathLike) -> bool:
    """Whether this can be a hub id: a string of the right form that is no path of an existing file or folder."""
    return isinstance(text, str) and not os.path.exists(text) and bool(_HUB_ID.fullmatch(text)) and ".." not in text


def fetch(hub_id: str, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of the hub's cache that holds the checkpoint, filled first where it is not.

    Only what the formats read is fetched. Where the hub cannot be reached, the cache has to do.

    Raises:
      FileNotFoundError: the hub has no such repository or revision, does not give it, or it holds no checkpoint.
      ConnectionError: the hub cannot be reached, or is not to be, and the cache does not hold the checkpoint.
    """
    import huggingface_hub
    from huggingface_hub import constants, errors

    try:
        # One question with a time limit comes first: the library repeats its own, and waits without a limit. The answer
        # lists the repository's files, by which to choose.
        api = huggingface_hub.HfApi(token=token)
        info = api.model_info(hub_id, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        wanted = choose_files(file.rfilename for file in info.siblings or ())
        if not any(_is_weights(name) for name in wanted):
            raise _NoCheckpoint
        patterns = [glob.escape(name) for name in wanted]
        return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, token=token, allow_patterns=patterns))
    except _NoCheckpoint as error:
        raise FileNotFoundError(
            f"Expected a BERT checkpoint in {hub_id} on the Hugging Face hub. Received: a repository without weights "
            "in a format that this package reads (safetensors, pytorch_model.bin, TF1 or KerasHub)."
        ) from error
    except (errors.HFValidationError, errors.RevisionNotFoundError, errors.LocalTokenNotFoundError) as error:
        raise _error(hub_id, revision, error) from error
    except Exception as error:  # each version of the library, and each HTTP client below it, has errors of its own
        if isinstance(error, OSError) and (error.filename is not None or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise  # the cache cannot be written: nothing that the hub could help
        folder = _from_cache(hub_id, revision)
        if folder is None:
            raise _error(hub_id, revision, error) from error
        if not isinstance(error, errors.OfflineModeIsEnabled):
            _logger.warning("%s: taken from the cache, since the hub %s", hub_id, _reason(revision, error)[1])
        return folder


class _NoCheckpoint(Exception):
    """The repository holds nothing to read."""


def choose_files(names: Iterable[str]) -> list[str]:
    """Of all files of a repository those that a checkpoint is read from: no copy of the weights in another format."""
    names = sorted(names)
    chosen = {name for name in names if _SMALL_FILES.fullmatch(name)}
    for folder in {re.match(_FOLDER, name, re.ASCII)[0] for name in names}:
        for patterns in _WEIGHTS:
            pattern = re.compile("|".join(f"{re.escape(folder)}(?:{one})" for one in patterns), re.ASCII)
            found = [name for name in names if pattern.fullmatch(name)]
            if found:
                chosen.update(found)
                break
    return sorted(chosen)


def _is_weights(name: str) -> bool:
    return any(re.fullmatch(f"{_FOLDER}(?:{one})", name, re.ASCII) for patterns in _WEIGHTS for one in patterns)


def _from_cache(hub_id: str, revision: str | None) -> Path | None:
    """The checkpoint as far as the cache has it; None where it has no weights of it."""
    import huggingface_hub

    try:
        # No pattern: the library would take what was left out on purpose for missing.
        folder = huggingface_hub.snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=[])
    except OSError:
        return None
    names = [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()]
    return Path(folder) if any(_is_weights(name) for name in names) else None


def _error(hub_id: str, revision: str | None, error: Exception) -> Exception:
    kind, reason, advice = _reason(revision, error)
    return kind(
        f"Expected a checkpoint: a folder, or an id on the Hugging Face hub. Received: {hub_id!r}. There is no such "
        f"folder in {os.getcwd()}, and the hub {reason}. {advice}"
    )


def _reason(revision: str | None, error: Exception) -> tuple[type[OSError], str, str]:
    """(class of the error to raise, what is the matter with the hub, what to do)"""
    from huggingface_hub import constants, errors

    spelling = "Check the spelling"
    name = type(error).__name__
    first_line = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    if isinstance(error, errors.HFValidationError):
        return FileNotFoundError, "has no ids of this form", f"{spelling} of the path."
    if isinstance(error, errors.LocalTokenNotFoundError):
        return FileNotFoundError, "was not asked: token=True, and none is saved here", "Run `hf auth login` first."
    if isinstance(error, errors.RevisionNotFoundError):
        return FileNotFoundError, f"has no revision {revision!r} of it", f"{spelling} of the branch, tag or commit."
    if isinstance(error, errors.GatedRepoError):
        advice = "Accept them on its page, then give token= or set HF_TOKEN."
        return FileNotFoundError, "gives it only to those who accepted its conditions", advice
    if isinstance(error, errors.RepositoryNotFoundError):
        advice = f"{spelling}; for a private repository give token= or set HF_TOKEN."
        return FileNotFoundError, "shows no such repository", advice
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return FileNotFoundError, f"does not permit it (status {status}: {first_line})", "Check the token."
    if isinstance(error, errors.OfflineModeIsEnabled):
        advice = "Fetch it once without HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE), or give a folder."
        return ConnectionError, f"is offline here, with no whole copy in its cache {constants.HF_HUB_CACHE}", advice
    advice = "Check the path, or try again with a network."
    return (
        ConnectionError,
        f"cannot be reached ({name}: {first_line}), with no whole copy in its cache {constants.HF_HUB_CACHE}",
        advice,
    )
