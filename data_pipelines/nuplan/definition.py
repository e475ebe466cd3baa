"""nuPlan's specification, from which training steps are planned."""

from typing import Any

from data_pipelines.spec import DatasetSpec, Definition


def _spec(data: Any) -> DatasetSpec:
    height, width = data.frame_size
    return DatasetSpec(label="nuplan", height=height, width=width, frame_rate=10.0)


DEFINITION = Definition(fields={}, spec=_spec, variant=lambda data: {})
