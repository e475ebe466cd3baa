"""TFDS builder of the clips of a folder of videos."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from data_pipelines.clips import Cutting, Moment
from data_pipelines.errors import DataError
from data_pipelines.imports import Found, ImportBuilder, Source
from data_pipelines.pictures import Facts, Fit, PictureFolder
from data_pipelines.progress import progress
from data_pipelines.recipe import Recipe
from data_pipelines.video import LONGEST_HOLD, VideoFile
from data_pipelines.video_folder.definition import PICTURES_A_SECOND
from data_pipelines.video_folder.listing import Candidate, list_folder


class VideoFolder(ImportBuilder):
    """Clips of consecutive frames of one file each."""

    name = "video_folder"
    UNIT = "file"
    DESCRIPTION = "Clips of the videos of a folder."

    @staticmethod
    def listed(recipe: Recipe) -> list[tuple[str, str]]:
        listed = list_folder(Path(recipe.source))
        return [(one.name, one.fingerprint) for one in listed.candidates]

    @staticmethod
    def find(recipe: Recipe, show_progress: bool = False) -> Found:
        listed = list_folder(Path(recipe.source))
        sources, rejected = [], dict(listed.rejected)
        with progress(f"Looking into {recipe.source}", len(listed.candidates), "files", show_progress) as advance:
            for one in listed.candidates:
                try:
                    facts = _facts(recipe, one)
                except DataError as error:
                    rejected[one.name] = str(error)
                else:
                    size = f"{round(facts.width)}x{round(facts.height)}"
                    about = (one.name, facts.seconds, facts.rate, size, one.fingerprint, facts.notes)
                    sources.append(Source(*about, where={"pictures": one.pictures}))
                advance(1)
        return Found(sources, rejected, listed.ignored)

    @staticmethod
    def moments(recipe: Recipe, source: Source, start: float, stop: float, notes: list[str]) -> Iterator[Moment]:
        fields, path = recipe.variant, Path(recipe.source) / source.name
        fit = Fit(recipe.height, recipe.width, fields["fit"])
        pictures = source.where["pictures"]
        video = PictureFolder(path, pictures, notes) if pictures else VideoFile(path, notes)
        rate = fields["rate"] or (PICTURES_A_SECOND if pictures else 0.0)
        for seconds, frame in itertools.islice(video.frames(fit, rate, start, stop), 0, None, fields["stride"]):
            yield {"frames": frame, "seconds": np.float32(seconds)}

    @staticmethod
    def cutting(recipe: Recipe) -> Cutting:
        fields = recipe.variant
        # A frame that cannot be read leaves a gap of one; times of files are not that even.
        gap = 1.5 * fields["stride"] / fields["rate"] if fields["rate"] else LONGEST_HOLD
        return Cutting(recipe.clip_length, fields["step"], fields["cut"], fields["still"], gap)


def _facts(recipe: Recipe, one: Candidate) -> Facts:
    path = Path(recipe.source) / one.name
    if one.pictures:
        return PictureFolder(path, one.pictures).facts(recipe.variant["rate"] or PICTURES_A_SECOND)
    return VideoFile(path).facts()
