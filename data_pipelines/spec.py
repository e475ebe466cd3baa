"""What a data set offers: the size of its frames, and which annotations its records have beside them.

Everything above the data asks the specification which measures and models a data set allows; nothing above knows a data
set by its name. Annotations have one name and one meaning in all data sets:

| name | shape of one frame | meaning |
|---|---|---|
| actions | n, or none for one actor | number of the action taken at frame t and seen at frame t + 1 |
| moves | as actions | the action as far as it had an effect, else 0 |
| positions | n 2 | x (to the right) and y (down) of every entity, in `unit`s: cells of `DatasetSpec.cells`, or pixels |
| directions | n | in which every entity looks: 0 right, 1 down, 2 left, 3 up |
| masks | H W | number of the entity that a pixel shows, of `classes`; 0 is the background |
| sizes | n | extent of every entity in pixels |
| controls | a | continuous action taken at frame t: of a robot, or the motion of a car to the next frame |
| state | s | measured state of a robot |
| features | h w c | of the user's own network, of the patches of the frame |
| rewards | none | for the action at frame t |
| seconds | none | since the first frame of the file that it was read from |
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from data_pipelines.fields import Group, Problem


@dataclasses.dataclass(frozen=True)
class Annotation:
    """One field of the records beside the frames.

    Attributes:
      shape: of one frame, or of the clip; may have one `ANY_SIZE`.
      dtype: as stored.
      meaning: one line.
      unit: of a measured value.
      classes: of a class number, how many classes there are.
      per_clip: one value for the whole clip.
    """

    shape: tuple[int, ...]
    dtype: type[np.generic]
    meaning: str
    unit: str = ""
    classes: int = 0
    per_clip: bool = False


# In the shape of an annotation: as many numbers as the data have.
ANY_SIZE = -1
# Of every frame that was read from a file.
SECONDS = Annotation((), np.float32, "since the first frame of what it was read from", unit="seconds")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Static facts of a data set, known from the configuration alone.

    Attributes:
      label: short name in tables, without the size of the frames.
      height, width: of a frame, in pixels.
      annotations: by their names in the records.
      frame_rate: frames a second; None where a frame is a step of a simulation.
      cells: rows and columns of the grid of cells in which positions are counted; None for positions in pixels.
      tiled: whether every cell of a frame shows one of a few tiles.
      forward_action: the action that moves an entity in its direction, unless something is in its way; None where no
        action does.
      displaced_clips: whether a clip can be had in which the same is done in other places.
    """

    label: str
    height: int
    width: int
    annotations: Mapping[str, Annotation] = dataclasses.field(default_factory=dict)
    frame_rate: float | None = None
    cells: tuple[int, int] | None = None
    tiled: bool = False
    forward_action: int | None = None
    displaced_clips: bool = False

    @property
    def actors(self) -> int:
        """How many actors' actions the records have; 0 for none."""
        actions = self.annotations.get("actions")
        return 0 if actions is None else int(np.prod(actions.shape, dtype=int))

    @property
    def num_actions(self) -> int:
        """How many actions every actor has; 0 where the records have none."""
        actions = self.annotations.get("actions")
        return 0 if actions is None else actions.classes

    @property
    def entities(self) -> int:
        """How many entities have positions; 0 for none."""
        positions = self.annotations.get("positions")
        return 0 if positions is None else positions.shape[0]

    @property
    def name(self) -> str:
        """Label and size, for example `multigrid 4 agents 64x64` (height x width)."""
        return f"{self.label} {self.height}x{self.width}"

    @property
    def open_annotations(self) -> list[str]:
        """Annotations whose size only the data tell."""
        return [name for name, annotation in self.annotations.items() if ANY_SIZE in annotation.shape]

    def resized(self, shapes: Mapping[str, tuple[int, ...]]) -> "DatasetSpec":
        """The specification with the shapes that some annotations have in the data."""
        found = {name: dataclasses.replace(self.annotations[name], shape=shape) for name, shape in shapes.items()}
        return dataclasses.replace(self, annotations={**self.annotations, **found})

    def has(self, *annotations: str) -> bool:
        """Whether the records have all of these."""
        return all(name in self.annotations for name in annotations)


@dataclasses.dataclass(frozen=True)
class Definition:
    """All that stands in a data set's folder, for the registry. Light to import: the builder is named, not imported.

    Attributes:
      fields: of the configuration, under `data.<name of the data set>`.
      spec: from the `data` node of a configuration.
      variant: from the same, the numbers and words that decide the content beside the fields of all data sets.
      builder: `module:class` of its `RecordBuilder`; empty where there is no reader of the data.
      reads: the field, relative to `data`, that names the folder of the user's files which are read; empty where
        records are generated. The files then decide how many frames there are.
      problems: what of a `data` node cannot work, beyond the bounds of single fields; names are relative to `data`.
      extra: the packages that it needs, as `pip install "flam_jax[extra]"` names them; empty for none.
    """

    fields: Group
    spec: Callable[[Any], DatasetSpec]
    variant: Callable[[Any], Mapping[str, Any]]
    builder: str = ""
    reads: str = ""
    problems: Callable[[Any], Iterator[Problem]] = lambda data: iter(())
    extra: str = ""


__all__ = ["ANY_SIZE", "SECONDS", "Annotation", "DatasetSpec", "Definition"]
