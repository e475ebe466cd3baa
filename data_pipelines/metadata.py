"""What lies beside the record files, read as data: nothing that a folder says is imported or run.

TensorFlow Datasets writes `features.json` and `dataset_info.json`, but its own reader imports the class that
`features.json` names. What the fields are is known from the specification; here it is compared with what the file says.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recipe import Recipe
from data_pipelines.spec import ANY_SIZE, DatasetSpec

_MOST_BYTES = 4 * 2**20  # of a file: what is written has a few thousand
_MOST_SIZE = 4096  # of an annotation of any size
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FORMAT = "array_record"
_CLASSES = {
    True: "tensorflow_datasets.core.features.tensor_feature.Tensor",
    False: "tensorflow_datasets.core.features.scalar.Scalar",
}


class MetadataError(ValueError):
    """A description that this project does not write. What is wrong with it, in one line."""


@dataclass(frozen=True)
class Field:
    """How one field of a record is stored."""

    shape: tuple[int, ...]  # of the whole clip; () for a number
    dtype: np.dtype


def record_fields(recipe: Recipe, spec: DatasetSpec) -> dict[str, Field]:
    """What a record holds: frames, the number of its episode and of its clip in that, and the annotations."""
    length, number = recipe.clip_length, Field((), np.dtype(np.int64))
    frames = Field((length, recipe.height, recipe.width, 3), np.dtype(np.uint8))
    return {"frames": frames, "episode": number, "clip": number} | {
        name: Field(() if annotation.per_clip else (length, *annotation.shape), np.dtype(annotation.dtype))
        for name, annotation in spec.annotations.items()
    }


def check_features(directory: Path, expected: Mapping[str, Field]) -> dict[str, Field]:
    """Compares `features.json` with the fields that records have.

    Returns:
      The fields, those of any size with the size that they have.

    Raises:
      MetadataError: it is not there, cannot be read, or says something else.
    """
    tree = read_json(directory / "features.json")
    features = _member(tree, "features.json", "featuresDict", "features")
    fields = {}
    for name in sorted({*features, *expected}):
        if name not in expected or name not in features:
            raise MetadataError(f"features.json: {'no' if name in expected else 'an unknown'} field {name!r:.60}")
        field = expected[name]
        kind = _member(features, "features.json", name)
        stored = _member(kind, "features.json", "tensor")
        shape = _member(stored, "features.json", "shape").get("dimensions", [])
        field = fields[name] = _sized(field, shape)
        wanted = {
            "pythonClassName": (kind.get("pythonClassName"), _CLASSES[bool(field.shape)]),
            "dtype": (stored.get("dtype"), field.dtype.name),
            "encoding": (stored.get("encoding"), "bytes" if field.shape else "none"),
            "shape": (shape, [str(size) for size in field.shape]),
        }
        for what, (found, right) in wanted.items():
            if found != right:
                raise MetadataError(f"features.json: {what} of {name} is {found!r:.80}, expected {right!r}")
    return {name: fields[name] for name in expected}


def _sized(field: Field, shape: Any) -> Field:
    """With a size that is stated in place of any."""
    if ANY_SIZE not in field.shape or not isinstance(shape, list) or len(shape) != len(field.shape):
        return field
    place = field.shape.index(ANY_SIZE)
    if not _is_count(shape[place]) or int(shape[place]) > _MOST_SIZE:
        return field
    return Field((*field.shape[:place], int(shape[place]), *field.shape[place + 1 :]), field.dtype)


def record_files(directory: Path, dataset: str) -> dict[str, list[tuple[Path, int]]]:
    """The record files of every split, in order, with their numbers of records, as `dataset_info.json` says.

    Raises:
      MetadataError: it is not there, cannot be read, or describes what this project does not write.
    """
    name = "dataset_info.json"
    info = read_json(directory / name)
    for key, right in (("name", dataset), ("fileFormat", _FORMAT)):
        if info.get(key) != right:
            raise MetadataError(f"{name}: {key} is {info.get(key)!r:.80}, expected {right!r}")
    splits = info.get("splits")
    if not isinstance(splits, list):
        raise MetadataError(f"{name}: no list of splits")
    found: dict[str, list[tuple[Path, int]]] = {}
    for split in splits:
        label = split.get("name") if isinstance(split, dict) else None
        if not isinstance(label, str) or not label.isidentifier() or label in found:
            raise MetadataError(f"{name}: {label!r:.80} is no name of a split")
        if split.get("filepathTemplate") != _TEMPLATE:
            raise MetadataError(f"{name}: filepathTemplate of {label} is not {_TEMPLATE}")
        counts = split.get("shardLengths")
        if not isinstance(counts, list) or not counts or not all(map(_is_count, counts)):
            raise MetadataError(f"{name}: shardLengths of {label} are no numbers of records")
        found[label] = [
            (directory / f"{dataset}-{label}.{_FORMAT}-{number:05d}-of-{len(counts):05d}", int(count))
            for number, count in enumerate(counts)
        ]
    return found


def _is_count(text: Any) -> bool:
    return isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) < 12 and int(text) > 0


def read_json(path: Path, most_bytes: int = _MOST_BYTES) -> dict[str, Any]:
    """Reads a file that holds one object.

    Raises:
      MetadataError: it is not there, cannot be read, is no object of JSON, or is greater than that.
    """
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        tree = json.loads(content.decode("utf-8")) if len(content) <= most_bytes else None
    except OSError as error:
        raise MetadataError(f"{path.name}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"{path.name} is not JSON") from error
    if not isinstance(tree, dict):
        raise MetadataError(f"{path.name} is no object of JSON of at most {most_bytes} bytes")
    return tree


def _member(tree: Mapping[str, Any], file: str, *names: str) -> dict[str, Any]:
    node: Any = tree
    for name in names:
        node = node.get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise MetadataError(f"{file}: no {'.'.join(names)!r:.80}")
    return node


__all__ = ["Field", "MetadataError", "check_features", "read_json", "record_fields", "record_files"]
