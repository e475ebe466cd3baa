"""What a training step would take on TPUs that are not there: memory, work, communication, scaling.

    python -m flam_jax.topology --config=FILE[:ARGUMENTS] --topology=v5e:16x16 [--topology=... ...]

    --topology   chip and shape of a slice: v4, v5e, v5p or v6e, as in v5e:16x16 or v5p:4x4x4; may be given again
    --stage      tokenizer or dynamics (default)
    --per_chip   examples a chip and step; by default what the configuration's batch is on the smallest topology
    --fit        finds the largest number of examples a chip that fits into its memory
    --parameters prints the sharding of every parameter
    --json       a file for all numbers
    --config.x.y=VALUE   changes one field of the configuration

The real step is compiled by the TPU's own compiler (`pip install "flam_jax[tpu-plan]"`, on Linux, no TPU needed).
Memory, arithmetic and communicated bytes are exact for that program. Seconds are estimates: the compiler's own cycles
for one chip's work, and bytes over the bandwidth of one axis of the interconnect, with nothing hidden behind work.
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flam_jax.command_line import read_flags
from flam_jax.config import Config, ConfigError, load_config
from flam_jax.hlo import Collective, read_collectives, read_cycles
from flam_jax.messages import answer, print_error, short_repr
from flam_jax.output import configure_output
from flam_jax.process import leave_absent_chips_alone

USAGE = "python -m flam_jax.topology --config=FILE[:ARGUMENTS] --topology=CHIP:SHAPE [--config.FIELD=VALUE ...]"


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of a TPU chip (Google Cloud's TPU documentation).

    Attributes:
      memory: bytes of HBM.
      flops: bf16 operations a second.
      link: bytes a second of one link of the interconnect, in one direction.
      clock: cycles a second; what its peak and the number of its multipliers come to.
    """

    memory: int
    flops: float
    link: float
    clock: float


CHIPS = {
    "v4": Chip(memory=32 * 2**30, flops=275e12, link=50e9, clock=1.05e9),
    "v5e": Chip(memory=16 * 2**30, flops=197e12, link=50e9, clock=1.5e9),
    "v5p": Chip(memory=95 * 2**30, flops=459e12, link=100e9, clock=1.75e9),
    "v6e": Chip(memory=32 * 2**30, flops=918e12, link=112e9, clock=1.75e9),
}
LINKS_USED = 2  # both directions of one axis of the torus: what a ring has, whichever axis it runs along


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the compiler says of a step on one topology."""

    topology: str
    chips: int
    mesh: dict[str, int]
    per_chip: int  # examples
    batch: int  # examples
    memory: int  # bytes a chip needs
    memory_limit: int  # bytes it has
    flops: float  # of a chip, products of matrices and convolutions
    seconds: float  # the compiler's estimate of a chip's work
    collectives: list[Collective]
    communication_seconds: float
    efficiency: float | None  # of one chip alone, with as many examples
    compile_seconds: float


def main(arguments: list[str]) -> int:
    """Prints the plans; returns the exit status."""
    if answer(arguments, __doc__ or ""):
        return 0
    # The steps are compiled for chips that are not here: whatever is here is left alone.
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from flam_jax.surroundings import SurroundingsError, check_surroundings
    from flam_jax.training.sharding import ShardingError

    try:
        check_surroundings()
        options = _read(arguments)
        _report(options)
    except ConfigError as error:
        print_error("flam_jax", error)
        return 2
    except (PlanError, ShardingError, SurroundingsError) as error:
        print_error("flam_jax", error)
        return 1
    return 0


class PlanError(RuntimeError):
    """A step that cannot be planned; the message is one line."""


class DoesNotFit(PlanError):
    """A step that needs more memory than a chip has."""


@dataclasses.dataclass(frozen=True)
class Options:
    """The command line."""

    config: Config
    topologies: list[str]
    stage: str
    per_chip: int | None
    fit: bool
    parameters: bool
    json: str


def _read(arguments: list[str]) -> Options:
    from flam_jax.training.stages import STAGES

    values, overrides = read_flags(
        arguments,
        USAGE,
        required=("--config", "--topology"),
        optional=("--stage", "--per_chip", "--json"),
        switches=("--fit", "--parameters"),
        repeated=("--topology",),
        files=("--json",),
        takes_overrides=True,
    )
    topologies = values["--topology"].split("\n")
    for topology in topologies:
        split_name(topology)
    stage = values.get("--stage", "dynamics")
    if stage not in STAGES:
        raise ConfigError(f"--stage={short_repr(stage)}: expected {' or '.join(STAGES)}")
    per_chip = values.get("--per_chip", "")
    if per_chip and not (per_chip.isdecimal() and int(per_chip) > 0):
        raise ConfigError(f"--per_chip={short_repr(per_chip)}: expected a whole number of at least 1")
    return Options(
        config=load_config(values["--config"], overrides=overrides),
        topologies=topologies,
        stage=stage,
        per_chip=int(per_chip) if per_chip else None,
        fit="--fit" in values,
        parameters="--parameters" in values,
        json=values.get("--json", ""),
    )


def split_name(topology: str) -> tuple[str, tuple[int, ...]]:
    """`v5e:4x4` as chip and shape.

    Raises:
      ConfigError: there is no such chip, or the shape is none.
    """
    chip, _, shape = topology.partition(":")
    dimensions = 3 if chip in ("v4", "v5p") else 2
    if chip not in CHIPS or not re.fullmatch("x".join(["[1-9][0-9]*"] * dimensions), shape):
        raise ConfigError(
            f"--topology={short_repr(topology)}: expected one of {', '.join(CHIPS)} and a shape, as in v5p:4x4x4"
        )
    return chip, tuple(int(size) for size in shape.split("x"))


@contextlib.contextmanager
def _without_flags() -> Iterator[None]:
    """Hides XLA_FLAGS: the TPU's compiler ends the process at a flag that only the XLA of this machine knows. Its own
    flags are in LIBTPU_INIT_ARGS."""
    flags = os.environ.pop("XLA_FLAGS", None)
    try:
        yield
    finally:
        if flags is not None:
            os.environ["XLA_FLAGS"] = flags


def devices_of(topology: str) -> list[Any]:
    """The devices of a slice that need not exist.

    Raises:
      PlanError: the compiler is not installed, or does not know this slice.
    """
    leave_absent_chips_alone()
    from jax.experimental import topologies

    # The two cores of a v4 chip are one device, as they are on a real slice.
    options = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    try:
        with _without_flags():
            return topologies.get_topology_desc(platform="tpu", topology_name=topology, **options).devices
    except Exception as error:  # of whatever kind the plugin raises
        line = str(error).strip().splitlines()[0][:200]
        raise PlanError(
            f"--topology={topology}: the TPU compiler does not give it: {line}; it comes with pip install"
            ' "flam_jax[tpu-plan]", for Linux'
        ) from error


def plan(config: Config, topology: str, *, stage: str = "dynamics", per_chip: int, chips: int | None = None) -> Plan:
    """Compiles the training step of a stage for a slice.

    Args:
      config: `mesh` says how the slice is cut; `batch_size` is replaced.
      topology: chip and shape, as `v5e:4x4`.
      stage: `tokenizer` or `dynamics`.
      per_chip: examples a chip and step; chips that share an example have so many together.
      chips: only the first so many of the slice, all of them by default.

    Raises:
      DoesNotFit: the step needs more memory than a chip has.
      PlanError: the slice is unknown, or the compiler fails.
      flam_jax.training.sharding.ShardingError: mesh and slice do not fit together.
    """
    from flam_jax.training.sharding import BATCH_AXES, make_mesh

    chip = CHIPS[split_name(topology)[0]]
    devices = devices_of(topology)[:chips]
    mesh = make_mesh(**config.mesh, devices=devices) if chips is None else make_mesh(devices=devices)
    batch = per_chip * math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    began = time.monotonic()
    step = _compile(config, stage, batch, mesh)
    compiled: Any = step.run
    text = compiled.as_text()
    collectives = read_collectives(text)
    return Plan(
        topology=topology,
        chips=len(devices),
        mesh=dict(mesh.shape),
        per_chip=per_chip,
        batch=batch,
        memory=step.bytes or 0,
        memory_limit=chip.memory,
        flops=step.flops / len(devices),
        seconds=read_cycles(text) / chip.clock,
        collectives=collectives,
        communication_seconds=sum(each.sent for each in collectives) / (LINKS_USED * chip.link),
        efficiency=None,
        compile_seconds=time.monotonic() - began,
    )


def _shapes(config: Config, stage_name: str, batch: int, mesh: Any) -> tuple[Any, Any, Any, Any]:
    """A stage without data, and the shapes on a mesh of its state, of what it keeps frozen, and of its batch."""
    import jax

    from flam_jax.training.sharding import batch_sharding, replicated
    from flam_jax.training.stages import find_stage, frozen_shapes
    from flam_jax.training.step import state_shapes

    def on(sharding: Any, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    stage = find_stage(stage_name)(config, None, {})
    frozen = on(replicated(mesh), frozen_shapes(stage_name, config))
    shapes = on(batch_sharding(mesh), stage.batch_shapes(batch))
    training = config[stage_name].training
    return stage, state_shapes(frozen, shapes, stage=stage, training=training, mesh=mesh), frozen, shapes


def _compile(config: Config, stage_name: str, batch: int, mesh: Any) -> Any:
    from flam_jax.training.step import compile_step, train_step

    stage, state, frozen, shapes = _shapes(config, stage_name, batch, mesh)
    training = config[stage_name].training
    step = functools.partial(train_step, stage=stage, training=training, seed=config.seed)
    try:
        with _without_flags():
            return compile_step(step, state, frozen, shapes, mesh=mesh)
    except Exception as error:  # XLA's errors have one type for everything
        line = " ".join(str(error).split())[:300]
        if "RESOURCE_EXHAUSTED" in line or "out of memory" in line.lower():
            used = re.search(r"[Uu]sed ([\d.]+[KMGT]?) of ([\d.]+[KMGT]?)", line)
            words = f": it needs {used[1]} of {used[2]} bytes" if used else ""
            raise DoesNotFit(f"the {stage_name} step does not fit into a chip's memory{words}") from error
        raise PlanError(f"the {stage_name} step does not compile: {line}") from error


def largest_fit(config: Config, topology: str, *, stage: str) -> Plan:
    """The plan with the most examples a chip that fits.

    Raises:
      DoesNotFit: not even one example fits.
    """
    parts = config[stage].training.accumulate
    fits = plan(config, topology, stage=stage, per_chip=parts)
    low, high = 1, None  # in units of `accumulate`: the largest known to fit, the smallest known not to
    slope = max(1, fits.memory)  # bytes a unit; the first holds the parameters too
    while high is None or high - low > max(1, low // 8):  # to an eighth: a compilation takes minutes
        # Memory grows about evenly. Where it would meet the limit, or else halfway.
        middle = low + max(1, low // 8, (fits.memory_limit - fits.memory) // slope)
        if high is not None and middle >= high:
            middle = (low + high) // 2
        try:
            found = plan(config, topology, stage=stage, per_chip=parts * middle)
            print(f"{topology}: {found.per_chip} examples a chip fit", flush=True)
            slope = max(1, (found.memory - fits.memory) // (middle - low))
            low, fits = middle, found
        except DoesNotFit as error:
            high = middle
            print(f"{topology}: {parts * middle} examples a chip do not: {error}", flush=True)
    return fits


def _report(options: Options) -> None:
    from flam_jax.training.sharding import BATCH_AXES, describe, make_mesh

    config, stage = options.config, options.stage
    training = config[stage].training
    meshes = {name: make_mesh(**config.mesh, devices=devices_of(name)) for name in options.topologies}
    parts = {name: math.prod(mesh.shape[axis] for axis in BATCH_AXES) for name, mesh in meshes.items()}
    # The same for all, so that they can be compared, and a whole number of parts.
    per_chip = options.per_chip or max(1, training.batch_size // min(parts.values()) // training.accumulate)
    per_chip = per_chip if options.per_chip else per_chip * training.accumulate
    _, state, *_ = _shapes(config, stage, per_chip * parts[options.topologies[0]], meshes[options.topologies[0]])
    import jax

    from flam_jax.tokenizer.discriminator import without_discriminator

    model, trained = (
        sum(leaf.size for leaf in jax.tree.leaves(part)) for part in (without_discriminator(state.params), state.params)
    )
    added = f" and {trained - model:,} of a discriminator" if trained > model else ""
    print(f"{stage}: {model:,} parameters{added}, {training.dtype}, windows of {training.window} frames", flush=True)
    if options.parameters:
        print(describe(state), flush=True)
    plans = []
    alone: dict[tuple[str, int], Plan] = {}
    for name in options.topologies:
        try:
            found = (
                largest_fit(config, name, stage=stage)
                if options.fit
                else plan(config, name, stage=stage, per_chip=per_chip)
            )
        except DoesNotFit as error:
            raise DoesNotFit(f"--topology={name}: with {per_chip} examples a chip {error}; try --fit") from error
        key = (split_name(name)[0], found.per_chip)
        if key not in alone:
            alone[key] = plan(config, name, stage=stage, per_chip=found.per_chip, chips=1)
        found = dataclasses.replace(found, efficiency=_efficiency(found, alone[key]))
        plans.append(found)
        print(_describe(found), flush=True)
    if options.json:
        from flam_jax.checkpoints import write_text

        write_text(Path(options.json), json.dumps([dataclasses.asdict(each) for each in plans], indent=2))


def _efficiency(many: Plan, one: Plan) -> float:
    """Of a chip among many, against one alone that does as many examples: work alone over work and communication."""
    shared = many.mesh["factor"]  # chips that share an example have more chips for it
    return one.seconds / shared / (many.seconds + many.communication_seconds)


def _describe(found: Plan) -> str:
    size = ", ".join(f"{axis} {number}" for axis, number in found.mesh.items())
    share = found.memory / found.memory_limit
    busy = found.flops / max(found.seconds, 1e-12) / CHIPS[split_name(found.topology)[0]].flops
    seconds = found.seconds + found.communication_seconds
    lines = [
        f"{found.topology}: {found.chips} chips ({size}), {found.per_chip} examples a chip, {found.batch} together",
        f"  memory a chip      {found.memory / 2**30:8.2f} GiB of {found.memory_limit / 2**30:.0f} ({share:.0%})",
        f"  work a chip        {found.flops / 1e12:8.2f} TFLOP",
        f"  estimate, work     {found.seconds * 1e3:8.1f} ms a step, {busy:.0%} of the chip's peak",
        f"  estimate, exchange {found.communication_seconds * 1e3:8.1f} ms a step, nothing of it hidden",
        *(f"    {each.kind:<18}{each.count:6} times, {each.bytes / 1e6:.1f} MB" for each in found.collectives),
        f"  estimate, together {seconds * 1e3:8.1f} ms a step, {found.batch / seconds:.0f} examples a second",
    ]
    if found.efficiency is not None:
        lines.append(f"  estimate, weak scaling against one chip: {found.efficiency:.3f}")
    return "\n".join([*lines, f"  compiled in {found.compile_seconds:.0f} s"])


if __name__ == "__main__":
    configure_output()
    sys.exit(main(sys.argv[1:]))
