"""Fields that all data sets have which are read from files of the user. Light to import."""

from collections.abc import Iterator, Mapping
from typing import Any

from data_pipelines.fields import Field, Problem, choice, whole

CLIP_FIELDS: Mapping[str, Field] = dict(
    stride=whole(1, "every how many-th frame is taken", 1, 1000),
    clip_step=whole(0, "frames from the start of a clip to the next one's; 0: clip_length, without overlap", 0, 10_000),
)
IMPORT_FIELDS: Mapping[str, Field] = dict(
    fit=choice(("crop", "letterbox", "stretch"), "how a frame of another shape is made to fit"), **CLIP_FIELDS
)


def import_variant(data: Any) -> dict[str, Any]:
    """What these fields of a configuration's `data` node decide, for `Definition.variant`."""
    fields = data[data.name]
    fit = {"fit": fields.fit} if "fit" in fields else {}
    return {"stride": fields.stride, **fit, "step": fields.clip_step or data.clip_length}


def import_problems(data: Any) -> Iterator[Problem]:
    """What of them cannot work, for `Definition.problems`."""
    step = data[data.name].clip_step
    if step > data.clip_length:
        yield f"{data.name}.clip_step", step, f"at most data.clip_length = {data.clip_length}"


__all__ = ["CLIP_FIELDS", "IMPORT_FIELDS", "import_problems", "import_variant"]
