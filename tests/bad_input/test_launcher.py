"""A thousand mistakes, made from the schema and the flags: each is one line that names it, before any work is done."""

import itertools
import math
import random
from pathlib import Path

import pytest

from flam_jax import config
from flam_jax.training import memory
from tests.bad_input.mistakes import DEBUG, LONG, WORKDIR, Bad, check, each

BOTH = (DEBUG, WORKDIR)
TWO = ("--num_processes=2",)
FIELDS = config.fields()
GROUPS = sorted({name.rsplit(".", depth)[0] for name in FIELDS for depth in range(1, name.count(".") + 1)})

pytestmark = pytest.mark.timeout(60)


def fields(changes: str, named: str, status: int = 2, experiment: str = DEBUG) -> Bad:
    """A small run with some fields changed, `name=value` with spaces between them; and the field that is named."""
    words = [f"--config.{change}" for change in changes.split()]
    return Bad((experiment, WORKDIR, *words), [f"config.{named} = "], status)


@pytest.fixture(scope="module")
def here(here: Path) -> Path:
    """With experiments that are none."""
    for name, content in EXPERIMENTS.items():
        (here / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return here


# One field with a value of another type or out of its bounds.


def wrong_values(name: str) -> list[str]:
    """Texts that the field cannot take."""
    field = FIELDS[name]
    default, choices = field.default, field.choices
    if choices:
        first, *_ = choices
        return ["", "no such", "0", "true", "ñ", LONG, first.swapcase(), f"[{first}]", f"{first} ", ",".join(choices)]
    if isinstance(default, bool):
        return ["", "1", "0", "yes", "nan", "None", "[true]", "true,false", "ñ", LONG]
    if isinstance(default, tuple):
        return [
            "",
            "4,x",
            "4.5",
            "4,1",
            "-4,4",
            "257",
            "nan",
            "true",
            "4,4;4",
            "ñ",
            LONG,
            "4," * 300,
            "256,257,256,128",
        ]
    if isinstance(default, str) and not field.folder:
        return ["a\nb", "\t", LONG]
    if isinstance(default, str):
        strange = ["None", "gs://bucket/x", "~no_such_user/x"]
        return [" ", "\n", LONG, f"runs/{LONG}/a", "a/" * 1000, *strange] + ([""] if default else [])
    wrong = ["", "much", "true", "nan", "-inf", "[1, 2]", "½", LONG, "9" * 400, "9" * 5000]
    low, high = field.low, field.high
    if isinstance(default, float):
        return [*wrong, str(math.nextafter(low, -math.inf)), str(math.nextafter(high, math.inf)), "-1e300", "1e300"]
    return [*wrong, "1.5", "1e3", "0x10", str(int(low) - 1), str(int(high) + 1)]


WRONG_VALUES = {
    name: [Bad((DEBUG, WORKDIR, f"--config.{name}={value}"), [f"config.{name} = "]) for value in wrong_values(name)]
    for name in FIELDS
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_with_a_wrong_value_is_named(name: str, here: Path) -> None:
    check(WRONG_VALUES[name], here)


# The same from an experiment, which can assign what is no text.

_LITERALS = ("None", "[]", "{}", "object()", "{'a': 1}", "10**5000", "(10**5000,)", "b'x'", "{1: 2}", "1j")


def set_wrong(name: str, literal: str) -> Bad:
    """An experiment that sets a field to a Python literal."""
    # ConfigDict itself refuses this number for a field of floats.
    too_large = literal == "10**5000" and isinstance(FIELDS[name].default, float)
    named = ["does not load: OverflowError"] if too_large else []
    return Bad((f"--config=HERE/assign.py:{name}={literal}", WORKDIR), [f"config.{name}", *named])


SET_WRONG = {
    name: [set_wrong(name, _LITERALS[(number + step) % len(_LITERALS)]) for step in range(3)]
    for number, name in enumerate(FIELDS)
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_an_experiment_sets_wrong_is_named(name: str, here: Path) -> None:
    check(SET_WRONG[name], here)


# Names that are no fields.


def misspelt(name: str) -> list[str]:
    """Names that are almost this one."""
    leaf = name.rsplit(".", 1)[-1]
    found = [name[:-1], f"{name}s", name.title(), name.upper(), f"{name}.x", f"x.{name}", f" {name}", f"{name} "]
    found += [name.replace(".", "_"), name.replace(".", ".."), name.replace("e", "é"), f"{name}\n", f"-{name}", leaf]
    return sorted({other for other in found if other not in FIELDS and other not in GROUPS})


_drawn = random.Random(0)
NAMES = [
    Bad((DEBUG, WORKDIR, f"--config.{other}=1"), [f"config.{other}: no such", f"config.{other[:-1]}\\n: no such"])
    for name in FIELDS
    for other in _drawn.sample(misspelt(name), 2)
]
NAMES += [Bad((DEBUG, WORKDIR, f"--config.{group}=1"), [f"config.{group} is a group of fields"]) for group in GROUPS]
_NONE = ("", ".", "..", "seed.", ".seed", "seed.x", "*", "0", "config.seed", "__class__", "lock", LONG, "x " * 900)
NAMES += [Bad((DEBUG, WORKDIR, f"--config.{name}=3"), [f"config.{name[:40]}"]) for name in _NONE]


def test_a_name_that_is_no_field_is_refused(here: Path) -> None:
    check(NAMES, here)


# Fields that contradict each other. The small run has frames of 64 pixels in 8x8 cells and 8x8 patches, 640 of them
# in clips of 16; windows of 4, batches of 2, 6 steps, 8 factors, a size of 16 with 2 heads; scored on 4 + 10 frames.

PROCGEN = "--config=experiments/procgen.py:debug"
NUPLAN = "--config=experiments/nuplan.py:debug"
STAGES, AXES = ("tokenizer", "dynamics"), ("data", "fsdp", "factor")
MODELS = FIELDS["dynamics.name"].choices
CONTRADICTIONS = [
    fields("data.num_frames=159", "data.num_frames"),
    fields("data.clip_length=65", "data.num_frames"),
    fields("data.clip_length=13", "evaluation.steps"),
    fields("data.clip_length=3 evaluation.steps=1 evaluation.context=2", "tokenizer.training.window"),
    fields("data.clip_length=10000 data.num_frames=100000 data.frame_size=1024", "data.clip_length"),
    fields("evaluation.context=7", "evaluation.steps"),
    fields("evaluation.steps=13", "evaluation.steps"),
    fields("evaluation.context=1024 evaluation.steps=1024", "evaluation.steps"),
    fields("dynamics.training.window=1", "dynamics.training.window"),
    fields("dynamics.prediction_steps=4", "dynamics.training.window"),
    fields("dynamics.prediction_steps=5 dynamics.training.window=5", "dynamics.training.window"),
    fields("data.frame_size=100", "data.frame_size"),
    fields("data.frame_size=98", "tokenizer.patch_size", experiment=PROCGEN),
    fields("data.frame_size=48 tokenizer.patch_size=6 tokenizer.encoder=impala", "tokenizer.patch_size"),
    fields("data.frame_size=48 tokenizer.patch_size=12 tokenizer.decoder=cnn", "tokenizer.patch_size"),
    *(fields(f"tokenizer.patch_size={size}", "tokenizer.patch_size") for size in (3, 5, 6, 7, 9, 12, 24, 33, 48)),
    fields("tokenizer.patches_share=0.5 tokenizer.encoder=impala", "tokenizer.patches_share"),
    fields("tokenizer.patches_share=0.5 tokenizer.decoder=cnn", "tokenizer.patches_share"),
    fields("tokenizer.encoder=impala", "tokenizer.patches_share", experiment=PROCGEN),
    fields("dynamics.name=action_conditioned", "dynamics.name", experiment=NUPLAN),
    fields("data.multigrid.grid_size=7", "data.frame_size"),
    fields("data.multigrid.grid_size=4", "data.multigrid.num_agents"),
    fields("data.multigrid.grid_size=4 data.multigrid.num_agents=3", "data.multigrid.num_agents"),
    *(fields(f"data.multigrid.shared_actions={count}", "data.multigrid.shared_actions") for count in (1, 5, 16)),
    *(fields(f"dynamics.num_factors={count}", "dynamics.total_action_dim") for count in (3, 5, 7, 17, 32)),
    *(fields(f"mesh.{axis}=0", f"mesh.{axis}") for axis in AXES),
]
for _model in MODELS:
    CONTRADICTIONS += [
        fields(f"dynamics.name={_model} dynamics.num_heads=3", "dynamics.num_heads"),
        fields(f"dynamics.name={_model} dynamics.model_dim=15", "dynamics.num_heads"),
        fields(f"dynamics.name={_model} dynamics.total_action_dim=17", "dynamics.total_action_dim"),
        fields(f"dynamics.name={_model} data.frame_size=4096 tokenizer.patch_size=2", "tokenizer.patch_size"),
    ]
for _model in ("playslot", "slotformer"):  # of the six steps each part has some
    CONTRADICTIONS += [
        fields(f"dynamics.name={_model} dynamics.training.warmup_steps={steps}", "dynamics.training.warmup_steps")
        for steps in (3, 5, 6)
    ]
for _stage in STAGES:
    _training = f"{_stage}.training"
    CONTRADICTIONS += [
        fields(f"{_training}.window=17", f"{_training}.window"),
        fields(f"{_training}.batch_size=1000000 data.frame_size=4096", f"{_training}.batch_size"),
        *(fields(f"{_training}.accumulate={parts}", f"{_training}.batch_size") for parts in (3, 4, 65_536)),
        *(
            fields(f"{_training}.batch_size=9 {_training}.accumulate={parts}", f"{_training}.batch_size")
            for parts in (2, 6)
        ),
        *(fields(f"{_training}.warmup_steps={steps}", f"{_training}.warmup_steps") for steps in (6, 7, 1000)),
        fields(f"{_training}.num_steps=3 {_training}.warmup_steps=3", f"{_training}.warmup_steps"),
    ]
for _pair in itertools.combinations(AXES, 2):
    _sizes = [f"--config.mesh.{axis}={-1 if axis in _pair else 1}" for axis in AXES]
    CONTRADICTIONS.append(Bad([*BOTH, *_sizes], [f"config.mesh.{_pair[0]}"]))
# More memory than any machine has would end in the middle.
CONTRADICTIONS += [
    fields("dynamics.model_dim=65536 dynamics.num_blocks=64", "dynamics.model_dim"),
    fields("data.num_frames=100000000 data.frame_size=2048 evaluation.num_clips=1000000", "evaluation.num_clips"),
    fields("data.frame_size=2048 evaluation.batch_size=1000000", "evaluation.batch_size"),
    fields(
        "data.num_frames=100000000 data.frame_size=2048 tokenizer.patch_size=4 dynamics.cache_codes=true",
        "dynamics.cache_codes",
    ),
]


def test_fields_that_contradict_each_other_are_named(here: Path) -> None:
    check(CONTRADICTIONS, here)


# What only the machine can tell: here of 1 GiB, with one device. The workdir is made, and stays empty.

OF_THE_MACHINE = [
    *each((*BOTH, "--config.mesh.{}=3"), AXES, "mesh.{} = 3", 1),
    *each((*BOTH, "--config.mesh.{}=1000000"), AXES, "mesh.{} = 1000000", 1),
    *(fields(f"tokenizer.restore_from=HERE/{name}", "tokenizer.restore_from", 1) for name in ("none", "run", "file")),
    fields("evaluation.weights=HERE/file", "evaluation.weights", 1),
    *each((DEBUG, "--workdir={}"), ("HERE/file", "HERE/file/below", "/proc/nowhere"), "--workdir: cannot write to", 1),
    *(fields(f"{stage}.training.batch_size=100000", f"{stage}.training.batch_size", 1) for stage in STAGES),
    fields("tokenizer.channels=8192 tokenizer.num_res_blocks=3", "tokenizer.channels", 1),
    fields("tokenizer.patch_size=2 dynamics.name=genie data.frame_size=256", "tokenizer.patch_size", 1),
    fields("dynamics.model_dim=4096", "dynamics.model_dim", 1),
    fields("dynamics.num_factors=1024 dynamics.total_action_dim=1024 data.frame_size=512", "dynamics.num_factors", 1),
    fields("evaluation.batch_size=100000", "evaluation.batch_size", 1),
    fields("evaluation.num_clips=100000 data.num_frames=10000000", "evaluation.num_clips", 1),
    fields("dynamics.cache_codes=true data.num_frames=100000000", "dynamics.cache_codes", 1),
]


def test_what_the_machine_cannot_do_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda: 2**30)
    check(OF_THE_MACHINE, here)


# Words.

NO_FLAGS = ("", "extra", "-w", "-config.seed=3", "config.seed=3", "seed=3", "-workdir=x")
NO_FLAGS += ("3", "ñ", "—config.seed=3", "*", "-", "=")
UNKNOWN_FLAGS = {
    "--workdir": ("--workdri", "--work_dir", "--WORKDIR", "--dir", "--wörkdir", "--workdir ", "--work"),
    "--config": ("--conf", "--Config", "--config-seed", "--configs.seed", "--cnofig"),
    "--": ("--", "--seed", "--x y"),
}
WORDS = [
    Bad((), ["--config is missing"]),
    Bad((DEBUG,), ["--workdir is missing"]),
    Bad((WORKDIR,), ["--config is missing"]),
    *each((*BOTH, "{}"), NO_FLAGS, "unexpected argument '{}'"),
    *each(("{}", *BOTH), NO_FLAGS, "unexpected argument '{}'"),
    *(
        case
        for near, flags in UNKNOWN_FLAGS.items()
        for case in each((*BOTH, "{}=x"), flags, f"{{}}; the nearest is {near}")
    ),
    *each((*BOTH, "{}"), ("--config.seed", "--config.data.path", "--config.", "--config.no"), "{}: a value is missing"),
    *each((DEBUG, "{}", WORKDIR), ("--config.seed", "--config.data.path"), "{}: a value is missing"),
    *each((DEBUG, "{}"), ("--workdir", "--workdir="), "--workdir: a value is missing"),
    *each(("{}", WORKDIR), ("--config", "--config="), "--config: a value is missing"),
    Bad((DEBUG, *BOTH), ["--config is given twice"]),
    Bad((*BOTH, WORKDIR), ["--workdir is given twice"]),
    Bad((DEBUG, "--workdir", "a", "--workdir", "b"), ["--workdir is given twice: 'a' and 'b'"]),
    Bad((*BOTH, "--config.seed=1", "--config.seed=1"), ["--config.seed is given twice"]),
    Bad((*BOTH, "--config.seed", "1", "--config.seed=2"), ["--config.seed is given twice"]),
    Bad((*BOTH, "--config.seed", "1", "2"), ["unexpected argument '2'"]),
    Bad((*BOTH, f"--{LONG}=3"), ["unknown flag --xxx"]),
    Bad((*BOTH, "--a b\nc=3"), ["unknown flag --a b\\nc"]),
    Bad((*BOTH, "x\ny" * 3000), ["unexpected argument 'x"]),
    Bad((*BOTH, "\udcff\x1b[31m"), ["unexpected argument '\\udcff\\x1b[31m'"]),
    *each((DEBUG, "--workdir={}"), (" ", LONG, "a/" * 3000, f"HERE/{LONG}", "a\0b"), "--workdir="),
    *each((DEBUG, "--workdir={}"), ("none", "s3://bucket/run", "file:///run", "~no_such_user"), "--workdir="),
    *each(("--config={}", WORKDIR), ("gs://bucket/a.py:cpu", "https://host/a.py"), "--config="),
    Bad((*BOTH, "--process_id=0"), ["--coordinator is missing"]),
    Bad((*BOTH, "--coordinator=x:1", "--process_id=0"), ["--num_processes is missing"]),
    *each((*BOTH, *TWO, "--process_id=0", "--coordinator={}"), ("x", "x:", ":1", "x:1:2", "x:a"), "--coordinator='{}'"),
    *each((*BOTH, *TWO, "--coordinator=x:1", "--process_id={}"), ("2", "-1", "1.0", "9" * 99), "--process_id='"),
    *each(
        (*BOTH, "--coordinator=x:1", "--process_id=0", "--num_processes={}"),
        ("0", "-1", "2.0", "two", "9" * 99),
        "--num_processes='",
    ),
]


def test_words_that_are_no_command_line_are_named(here: Path) -> None:
    check(WORDS, here)


# Experiments.

_EDIT = "from flam_jax.config import default_config\ndef get_config(arguments):\n    c = default_config()\n    "
EXPERIMENTS: dict[str, str | bytes] = {
    "assign.py": """
from flam_jax.config import default_config
def get_config(arguments):
    config = default_config()
    name, _, literal = arguments.partition("=")
    *groups, leaf = name.split(".")
    node = config
    for group in groups:
        node = node[group]
    with node.ignore_type():
        node[leaf] = eval(literal)
    return config
""",
    "no_python.txt": "x = 1",
    "compiled.pyc": b"\0\1\2",
    "library.so": b"\x7fELF",
    "binary.py": bytes(range(256)),
    "zeros.py": b"\0" * 64,
    "latin.py": "# ñ\nx = 'ñ'".encode("latin-1"),
    "empty.py": "",
    "syntax.py": "def get_config(",
    "indent.py": "def get_config(a):\nreturn 3",
    "raises.py": "raise RuntimeError('one\\ntwo')",
    "silent.py": "raise RuntimeError",
    "exits.py": "import sys\nsys.exit('nothing')",
    "exits_0.py": "raise SystemExit(0)",
    "recursion.py": "def get_config(a): return get_config(a)",
    "import.py": "import no_such_library",
    "from.py": "from flam_jax.config import no_such_name",
    "variable.py": "get_config = 3",
    "no_arguments.py": "def get_config(): return None",
    "none.py": "def get_config(a): return None",
    "number.py": "def get_config(a): return 3",
    "dict.py": "def get_config(a): return {'seed': 3}",
    "class.py": "from ml_collections import ConfigDict\ndef get_config(a): return ConfigDict",
    "nothing.py": "from ml_collections import ConfigDict\ndef get_config(a): return ConfigDict()",
    "numbers.py": "from ml_collections import ConfigDict\ndef get_config(a): return ConfigDict({1: 2})",
    "mixed.py": f"{_EDIT}c[3] = 4\n    return c",
    "frozen.py": f"{_EDIT}from ml_collections import FrozenConfigDict\n    return FrozenConfigDict(c)",
    "required.py": f"{_EDIT}from ml_collections.config_dict import required_placeholder\n"
    "    c.seed = required_placeholder(int)\n    return c",
    "placeholder.py": f"{_EDIT}from ml_collections.config_dict import placeholder\n"
    "    c.seed = placeholder(int)\n    return c",
    "cycle.py": f"{_EDIT}c.data.again = c.data\n    return c",
    "more.py": f"{_EDIT}c.dynamics.training.rate = 1\n    return c",
    "less.py": f"{_EDIT}del c.dynamics.training.window\n    return c",
    "no_group.py": f"{_EDIT}del c.mesh\n    return c",
    "number_for_group.py": f"{_EDIT}with c.ignore_type(): c.mesh = 3\n    return c",
    "group_for_number.py": f"{_EDIT}with c.ignore_type(): c.seed = c.mesh\n    return c",
    "type.py": f"{_EDIT}c.seed = 'x'\n    return c",
    "array.py": f"{_EDIT}import numpy\n    with c.ignore_type(): c.seed = numpy.eye(40)\n    return c",
    "no_repr.py": "class A:\n    def __repr__(self): raise OSError\n"
    + f"{_EDIT}with c.ignore_type(): c.seed = A()\n    return c",
    "long_message.py": "raise RuntimeError('x ' * 9000)",
}
EXPERIMENT_SAYS = {
    "no_python.txt": "is not a Python file",
    "compiled.pyc": "is not a Python file",
    "library.so": "is not a Python file",
    "variable.py": "does not load: TypeError",
    "no_arguments.py": "does not load: TypeError",
    "none.py": "returns NoneType",
    "number.py": "returns int",
    "dict.py": "returns dict",
    "class.py": "returns type",
    "frozen.py": "returns FrozenConfigDict",
    "nothing.py": "config.data.clip_length: a field is missing",
    "numbers.py": "config.1: no such field",
    "more.py": "config.dynamics.training.rate: no such field",
    "less.py": "config.dynamics.training.window: a field is missing",
    "no_group.py": "config.mesh.data: a field is missing",
    "number_for_group.py": "config.mesh: no such field",
    "group_for_number.py": "config.seed",
    "placeholder.py": "config.seed = None",
    "array.py": "config.seed = ",
    "no_repr.py": "config.seed = ",
}
LOADED = [
    Bad((f"--config=HERE/{name}", WORKDIR), [EXPERIMENT_SAYS.get(name, f"HERE/{name} does not load: ")])
    for name in EXPERIMENTS
]
_NOWHERE = ("HERE/nowhere.py", "HERE/file/below.py", "/dev/null", "experiments/multigird", "ñ.py")
_STRANGE = (":cpu", ":", " ", f"{LONG}.py", "a/" * 3000, "a\nb.py", "a\0b")
LOADED += each(("--config={}", WORKDIR), _NOWHERE, "--config: no such file: {}")
LOADED += each(("--config={}", WORKDIR), _STRANGE, "--config: no such file: ")
LOADED += each(("--config={}", WORKDIR), ("HERE", "HERE/folder.py", "/", "."), "--config: {} is a folder")
LOADED += each(("--config={}", WORKDIR), ("HERE/file",), "{} is not a Python file")
_NO_ARGUMENTS = ("x", "CPU", "cpu,debug", "cpu,cpu", "cpu ", " cpu", "cpu;debug", "cpu:debug", "debug,x")
_NO_ARGUMENTS += (LONG, "x y " * 999)
for _name in ("multigrid", "procgen"):
    LOADED += each((f"--config=experiments/{_name}.py:{{}}", WORKDIR), _NO_ARGUMENTS, "config argument ")
_NO_VARIANTS = ("bigfish", "2agents,4agents", "3agents", "agents", "4Agents,cpu", "4agents,correlated,cpu")
LOADED += each(("--config=experiments/multigrid.py:{}", WORKDIR), _NO_VARIANTS, "config argument ")


def test_experiments_that_are_none_are_named(here: Path) -> None:
    check(LOADED, here)


# Several mistakes at once, in any order.


def mixed(number: int) -> Bad:
    """A command line with one to four mistakes and some words that are right."""
    drawn = random.Random(number)
    wrong = {name: drawn.choice(WRONG_VALUES[name]) for name in drawn.sample(sorted(FIELDS), drawn.randint(1, 3))}
    words = [bad.words[-1] for bad in wrong.values()]
    named = [name for bad in wrong.values() for name in bad.named]
    if drawn.random() < 0.5:
        other = drawn.choice(NAMES)
        words.append(other.words[-1])
        named += other.named
    right = {"seed": "3", "tokenizer.channels": "32", "dynamics.name": "genie", "dynamics.kl_weight": "1e-3"}
    words += [f"--config.{name}={value}" for name, value in right.items() if name not in wrong]
    experiment = drawn.choice(["multigrid.py:debug", "procgen.py:starpilot,cpu", "procgen.py"])
    words += [f"--config=experiments/{experiment}", WORKDIR]
    drawn.shuffle(words)
    return Bad(tuple(words), named)


MIXED = [mixed(number) for number in range(150)]


def test_of_several_mistakes_one_is_named(here: Path) -> None:
    check(MIXED, here)


def test_there_are_a_thousand() -> None:
    lists = [*WRONG_VALUES.values(), *SET_WRONG.values(), NAMES, CONTRADICTIONS, OF_THE_MACHINE, WORDS, LOADED, MIXED]
    assert sum(len({tuple(bad.words) for bad in cases}) for cases in lists) > 1000
