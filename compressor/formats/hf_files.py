"""Copy what lies beside a transformer's weights, and say in its model card what was done."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import safe_open

from compressor.formats.folder_source import FolderSource
from compressor.loading.hugging_face import SENTENCE_MODULES
from compressor.report.templating import fill

CARD, SECTION = "README.md", "## Compressed\n"
"""The model card, and the first line of the template's section."""

_COPIED = frozenset(
    (".json", ".txt", ".model", ".jinja", ".spm", ".bpe", ".vocab", ".tiktoken", ".md")
)
"""Endings of what belongs to a model beside its weights: tokenizer, preprocessor, templates."""

_LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")

_NEW = frozenset(("config.json", CARD))
"""What is written anew."""

_FOLDERS = ("additional_chat_templates",)


def copy_beside(source: FolderSource, root: Path) -> None:
    """Copy the files that belong to a model into a result's folder, byte for byte.

    They take the place of what transformers writes by itself (generation_config.json). Weights,
    indices of weights and code are left behind; of a folder of sentence-transformers the
    other modules are copied whole.

    Args:
        source: Names the original's folder.
        root: The result's, into which the transformer has been written.
    """
    for place in dict.fromkeys((Path(), Path(source.transformer))):
        for file in _files_of(source.root / place):
            (root / place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.root / place / file, root / place / file)
    for module in _other_modules(source):
        shutil.copytree(source.root / module, root / module, dirs_exist_ok=True)


def _files_of(folder: Path) -> Iterator[Path]:
    own = [entry for entry in folder.iterdir() if entry.is_file()]
    inner = [entry for name in _FOLDERS for entry in sorted((folder / name).glob("*.jinja"))]
    for entry in sorted(own):
        is_index = entry.name.endswith(".index.json")
        is_known = entry.suffix in _COPIED or entry.stem in _LICENCES
        if is_known and not is_index and entry.name not in _NEW:
            yield entry.relative_to(folder)
    yield from (entry.relative_to(folder) for entry in inner)


def _other_modules(source: FolderSource) -> list[str]:
    """Return the folders of the modules of sentence-transformers beside the transformer."""
    try:
        told = json.loads((source.root / SENTENCE_MODULES).read_text(encoding="utf-8"))
        names = [str(each["path"]) for each in told[1:]]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    inside = [n for n in names if n and (source.root / n).resolve().parent == source.root.resolve()]
    return [name for name in inside if (source.root / name).is_dir()]


def largest_shard(home: Path) -> int:
    """Return the bytes of weights in the original's largest file; if it is one, more than any."""
    files = sorted(home.glob("*.safetensors"))
    return max(map(_bytes_of_weights, files)) if len(files) > 1 else 1 << 50


def names_stored(home: Path) -> set[str]:
    """Return the names of the tensors in the original's files."""
    names: set[str] = set()
    for file in home.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            names.update(opened.keys())
    return names


def _bytes_of_weights(file: Path) -> int:
    """Return the bytes of the tensors in a file of safetensors, which begins with its header."""
    with file.open("rb") as opened:
        header = int.from_bytes(opened.read(8), "little")
    return file.stat().st_size - 8 - header


def write_card(source: FolderSource, root: Path, metadata: Mapping[str, str]) -> None:
    """Write the model card: the original's, with a section on what was done.

    Args:
        source: Names the original's folder, and what is new in the configuration.
        root: The result's folder.
        metadata: What files say of themselves (`compressor.formats.provenance`).
    """
    known = {name.removeprefix("compress.").replace(".", "_"): v for name, v in metadata.items()}
    section = fill(
        "model_card.md.j2",
        escapes=False,
        original=source.root.resolve().name,
        changes=source.changes,
        macs=(known.get("macs_before"), known.get("macs_after")),
        version=known.get("version_compressor"),
    )
    try:
        before = (source.root / CARD).read_text(encoding="utf-8").rstrip() + "\n"
    except (OSError, ValueError):
        before = ""
    text = before if SECTION in before else f"{before}\n{section}".lstrip("\n")
    (root / CARD).write_text(text, encoding="utf-8")
