"""What lies in a folder of videos, told by names alone. Links are not followed."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.builder import reading
from data_pipelines.errors import DataError
from data_pipelines.imports import fingerprint
from data_pipelines.pictures import PICTURE_SUFFIXES
from data_pipelines.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Candidate:
    """A file, or a folder of pictures, that may be a video.

    Attributes:
      name: relative to the folder.
      fingerprint: changes with sizes and dates.
      pictures: names, for a folder of pictures.
    """

    name: str
    fingerprint: str
    pictures: Sequence[str] = ()


@dataclass(frozen=True)
class Listing:
    """Candidates in the order of their names; what cannot be one, with the reason; other files by the ends of names."""

    candidates: Sequence[Candidate]
    rejected: Mapping[str, str]
    ignored: Mapping[str, int]


def list_folder(root: Path) -> Listing:
    """Walks through a folder; hidden files and folders are left out.

    Raises:
      DataError: it is no folder, or cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"{root} is no folder: expected the folder of the videos")
    with reading(f"{root} cannot be read"):
        os.listdir(root)
    candidates: list[Candidate] = []
    rejected: dict[str, str] = {}
    ignored: Counter[str] = Counter()

    def name_of(path: str) -> str:
        return Path(path).relative_to(root).as_posix()

    def unreadable(error: OSError) -> None:
        rejected[name_of(error.filename)] = f"cannot be read: {error.strerror}"

    for folder, folders, files in os.walk(root, onerror=unreadable):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            rejected[name_of(os.path.join(folder, name))] = "a link to a folder: links are not followed"
        visible = sorted(name for name in files if not name.startswith("."))
        videos = [name for name in visible if name.lower().endswith(VIDEO_SUFFIXES)]
        pictures = [name for name in visible if name.lower().endswith(PICTURE_SUFFIXES)]
        if videos:  # pictures beside them are of something else
            pictures = []
        for name in videos:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                rejected[name_of(path)] = "a link: links are not followed"
            else:
                candidates.append(Candidate(name_of(path), fingerprint([Path(path)])))
        plain = [name for name in pictures if not os.path.islink(os.path.join(folder, name))]
        if len(plain) > 1:
            paths = [Path(folder, name) for name in plain]
            candidates.append(Candidate(name_of(folder), fingerprint(paths), plain))
        elif pictures:
            rejected[name_of(folder)] = "a folder of one picture, or of links: expected two pictures or more"
        used = {*videos, *(pictures)}
        ignored.update(Path(name).suffix.lower() or "no suffix" for name in visible if name not in used)
    candidates.sort(key=lambda one: one.name)
    return Listing(candidates, rejected, dict(ignored.most_common()))


__all__ = ["Candidate", "Listing", "list_folder"]
