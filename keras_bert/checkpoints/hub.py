"""Checkpoints by their id on the Hugging Face hub, through huggingface_hub: its cache, its offline mode, its token."""

from __future__ import annotations

import os
import re
from pathlib import Path

# A repository's name, or user/name; what else a user may type, such as ./folder or C:\folder, is a path.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def is_hub_id(text: str | os.PathLike) -> bool:
    """Whether this can be a hub id: a string of the right form that is no path of an existing file or folder."""
    return isinstance(text, str) and not os.path.exists(text) and bool(_HUB_ID.fullmatch(text)) and ".." not in text


def fetch(hub_id: str, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of the hub's cache that holds the checkpoint, filled first where it is not."""
    import huggingface_hub

    return Path(huggingface_hub.snapshot_download(hub_id, revision=revision, token=token))
