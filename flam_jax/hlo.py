"""What a compiled program says of itself: reads the text of XLA's optimized HLO."""

import dataclasses
import math
import re
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Collective:
    """One kind of communication in a step.

    Attributes:
      kind: all-reduce, all-gather, reduce-scatter, all-to-all or collective-permute.
      count: how often a step does it, loops counted as often as they run.
      bytes: that a chip's results have, over all of them.
      sent: bytes that a chip sends in a ring.
    """

    kind: str
    count: int
    bytes: int
    sent: float


_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f32": 4, "s32": 4, "u32": 4, "f64": 8}
_KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def read_cycles(text: str) -> int:
    """The compiler's estimate of the cycles of one run of a program, without communication.

    `cost_analysis` has an estimate too, in which a loop counts once and what is not known takes minus one second.

    Args:
      text: optimized HLO. A loop that counts up to a constant counts so often, another once.
    """
    times = _executions(text)
    found = ((computation, re.search(r'"estimated_cycles":"(\d+)"', line)) for computation, line in _instructions(text))
    return sum(times[computation] * int(match[1]) for computation, match in found if match)


def read_collectives(text: str) -> list[Collective]:
    """The communication of a compiled program, by kind.

    Args:
      text: optimized HLO. A loop that counts up to a constant counts so often, another once.
    """
    found: dict[str, list[tuple[int, int, float]]] = {}
    times = _executions(text)
    for computation, line in _instructions(text):
        match = re.search(rf"= (.+?) ({'|'.join(_KINDS)})(-start)?\(", line)
        if not match or not times.get(computation, 0):
            continue
        shapes, kind, is_start = match.groups()
        sizes = [
            math.prod(map(int, filter(None, dims.split(",")))) * _SIZES[name]
            for name, dims in re.findall(rf"\b({'|'.join(_SIZES)})\[([\d,]*)\]", shapes)
        ]
        # The result of a start is a pair of operands and results, but for an all-reduce.
        size = sum(sizes) if not is_start or kind == "all-reduce" else max(sizes, default=0)
        group = _group_size(line)
        share = (group - 1) / group if group > 1 else 0.0
        sent = {
            "all-reduce": 2 * share * size,
            "reduce-scatter": (group - 1) * size,
            "collective-permute": float(size),
        }.get(kind, share * size)
        found.setdefault(kind, []).append((times[computation], size, sent))
    return [
        Collective(
            kind,
            count=sum(number for number, *_ in each),
            bytes=sum(number * size for number, size, _ in each),
            sent=sum(number * sent for number, _, sent in each),
        )
        for kind, each in sorted(found.items())
    ]


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    """`(name of the computation, line)` of every instruction."""
    computation = ""
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith(" "):
            computation = line.removeprefix("ENTRY ").split(" ")[0].lstrip("%")
        elif " = " in line:
            yield computation, line.strip()


def _executions(text: str) -> dict[str, int]:
    """How often each computation is run in one run of the program."""
    calls: dict[str, list[tuple[str, int]]] = {}
    limits: dict[str, list[int]] = {}  # of a computation that says whether a loop goes on
    for computation, line in _instructions(text):
        limits.setdefault(computation, []).extend(map(int, re.findall(r"= s32\[\]\S* constant\((\d+)\)", line)))
    for computation, line in _instructions(text):
        loop = re.search(r" while\(.*condition=%?([\w.-]+), body=%?([\w.-]+)", line)
        if loop:
            # XLA writes `lax.scan` as counting up to a constant. Of another loop nobody knows.
            limit = limits.get(loop[1], [])
            trips = limit[0] if len(limit) == 1 else 1
            calls.setdefault(loop[2], []).append((computation, trips))
            continue
        for called in re.findall(r"(?:calls|to_apply|\w+_computation)=%?([\w.-]+)", line):
            calls.setdefault(called, []).append((computation, 1))
        for branches in re.findall(r"branch_computations=\{([^}]*)\}", line):
            for called in branches.split(","):
                calls.setdefault(called.strip().lstrip("%"), []).append((computation, 1))
    entry = re.search(r"^ENTRY %?([\w.-]+)", text, re.MULTILINE)
    times: dict[str, int] = {entry[1]: 1} if entry else {}

    def count(name: str) -> int:
        if name not in times:
            times[name] = sum(count(caller) * number for caller, number in calls.get(name, ()))
        return times[name]

    return {name: count(name) for name in {computation for computation, _ in _instructions(text)}}


def _group_size(line: str) -> int:
    """Chips that take part in one collective."""
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}", line)
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", mesh[2]))
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    if listed:
        return listed[1].count(",") + 1
    shaped = re.search(r"replica_groups=\[\d+,(\d+)\]", line)
    return int(shaped[1]) if shaped else 2
