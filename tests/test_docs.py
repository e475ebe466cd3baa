"""What the documents say is so: paths exist, commands and examples run, rooms import one way, every file is sound."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import readme

ROOT = Path(__file__).parents[1]
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "docs/scaling.md", "docs/findings.md"]
# Names in documents that stand for what a run makes, not for files of the repository.
MADE = (
    "config.json",
    "evaluation.json",
    "results.json",
    "results.html",
    "metrics.jsonl",
    "report.html",
    "finished.json",
    "blank.npy",
)
MADE_FOLDERS = (
    "tokenizer/",
    "dynamics/",
    "tensorboard/",
    "data/",
    "runs/",
    "checkpoints/",
    "pictures/",
    "weights/",
    "damaged/",
)


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository: those in git and those that will be, or all where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]
    skipped = {".git", ".venv", "data", "runs", "build", "dist", "__pycache__"}
    found = [path for pattern in patterns or ("*",) for path in ROOT.rglob(pattern)]
    return [path for path in found if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)]


PYTHON_FILES = tracked("*.py")


def names_of_paths(text: str) -> set[str]:
    """What looks like a path of the repository: links, and code spans with a slash or a file's ending."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    links = set(re.findall(r"\]\(([^)#]+)\)", text))
    spans = set(re.findall(r"`([\w./-]+)`", text))
    endings = (".py", ".md", ".toml", ".json", ".jsonl", ".html", ".npy", "/")
    paths = {span for span in spans if span.endswith(endings) or span.startswith((".ci", "docs/", "tests/"))}
    return {link for link in links if "://" not in link} | paths


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    names = names_of_paths((ROOT / document).read_text(encoding="utf-8"))
    assert len(names) > 2
    made = {name for name in names if name in (*MADE, *MADE_FOLDERS)}
    rooms = [ROOT, ROOT / "flam_jax", *(ROOT / "flam_jax").iterdir(), ROOT / "data_pipelines"]
    missing = {name for name in names - made if not any((room / name).exists() for room in rooms)}
    assert missing == set()


def test_the_commands_are_those_that_are_promised() -> None:
    first, second, *_ = readme.commands()
    start = "python3 -m venv .venv && .venv/bin/pip install -e "
    assert first.startswith(f'{start}".[multigrid]" && .venv/bin/python -m flam_jax.main ')
    assert second == f'{start}".[test]" && .venv/bin/python -m pytest'
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert '/bin/pip" install --quiet --disable-pip-version-check -e ".[test]"' in script
    used = {word.split(":")[0] for command in readme.commands() for word in command.split() if "--config=" in word}
    assert used == {f"--config=experiments/{path.name}" for path in tracked("experiments/*.py")}


@pytest.mark.xdist_group("debug_run")
@pytest.mark.parametrize("number", range(1, len(readme.commands())))
def test_every_command_runs(number: int, debug_run: Path) -> None:
    """The first one is run by the fixture. Those that follow find what it left."""
    for words in readme.runnable(readme.commands()[number]):
        assert readme.run(words, debug_run).stdout


@pytest.mark.xdist_group("debug_run")
def test_every_example_runs(debug_run: Path) -> None:
    """One after the other, as a reader would type them; in a process of its own, without the checks of the tests."""
    examples = readme.blocks("python")
    assert len(examples) >= 4
    code = "\n".join(examples).replace('"cpu"', '"debug"')
    code += "\nassert video.shape == other_video.shape == (1, frames.shape[1] - context, 64, 64, 3)"
    code += "\nassert frames_ahead.shape == (1, frames.shape[1] - 1, 64, 64, 3)"
    expected = re.findall(r"print\(\w+\)  # (.*)", code)
    done = readme.run([sys.executable, "-c", code], debug_run)
    assert done.stdout.splitlines() == expected


# Rooms of flam_jax from the ground up: a room imports those on lower floors, and those named beside its own.
FLOORS = [
    {"axes", "process", "messages", "footprint", "hlo"},
    {"tokenizer", "schema", "pictures", "cluster"},
    {"dynamics", "config"},
    {"baselines", "checkpoints", "command_line"},
    {"build", "reports"},
    {"world_model"},
    {"training", "evaluation"},
    {"main", "topology"},
    {"studies"},
    {"reproduce"},
]
PURE = ("tokenizer", "dynamics", "baselines")


def imports(file: Path) -> set[str]:
    """Full names of the modules that a file imports anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            # `from flam_jax import build` names a module, `from flam_jax.config import Config` a name in one.
            from_package = node.module in ("flam_jax", "data_pipelines")
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if from_package else {str(node.module)}
    return found


def room_of(file: Path) -> str:
    return file.relative_to(ROOT / "flam_jax").parts[0].removesuffix(".py")


def test_rooms_import_one_way() -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    for file in (file for file in PYTHON_FILES if file.is_relative_to(ROOT / "flam_jax")):
        room = room_of(file)
        if room == "__init__":  # the public names
            continue
        assert room in floor, f"{room} has no floor in this test"
        for name in imports(file):
            package, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if package == "flam_jax" and other != room:
                assert floor[other] < floor[room], f"{file.relative_to(ROOT)} imports {name}"
            if package == "data_pipelines":
                assert floor[room] >= floor["training"], f"{file.relative_to(ROOT)} imports {name}"
            assert package != "tests", f"{file.relative_to(ROOT)} imports {name}"


def test_data_pipelines_know_nothing_of_the_models() -> None:
    for file in (file for file in PYTHON_FILES if file.is_relative_to(ROOT / "data_pipelines")):
        assert not {name for name in imports(file) if name.split(".")[0] in ("flam_jax", "jax", "flax")}, file


@pytest.mark.parametrize("room", PURE)
def test_models_import_neither_configuration_nor_disk_nor_logging(room: str) -> None:
    for file in (ROOT / "flam_jax" / room).rglob("*.py"):
        packages = {name.split(".")[0] for name in imports(file)}
        standard = {"collections", "dataclasses", "functools", "math", "typing"}
        # Of flam_jax each other only: the floors above see to it.
        assert packages <= {"flam_jax", "flax", "jax", "jaxtyping", "numpy", *standard}, file


def test_the_networks_of_evaluation_know_nothing_but_each_other_and_one_file_of_them_reads_disks() -> None:
    for file in (ROOT / "flam_jax" / "evaluation" / "networks").glob("*.py"):
        disk = {"os", "pathlib", "zipfile", "zlib"} if file.name == "weights.py" else set()
        allowed = {"flax", "jax", "jaxtyping", "numpy", "collections", "dataclasses", "typing", *disk}
        for name in imports(file):
            assert name.startswith("flam_jax.evaluation.networks") or name.split(".")[0] in allowed, f"{file}: {name}"


def test_every_file_compiles() -> None:
    assert len(PYTHON_FILES) > 50
    for file in PYTHON_FILES:
        compile(file.read_text(encoding="utf-8"), str(file), "exec", dont_inherit=True)


def test_every_module_imports() -> None:
    packages = [file for file in PYTHON_FILES if file.relative_to(ROOT).parts[0] in ("flam_jax", "data_pipelines")]
    for file in packages:
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        assert importlib.import_module(name).__name__ == name


def test_no_file_names_a_machine_or_a_package_registry() -> None:
    home = str(Path.home())
    folders = [str(ROOT), sys.prefix, *([home] if len(Path(home).parts) > 2 else [])]
    # Put together here, so that this file does not hold them.
    roots = "|".join(("home", "Users", "root", "mnt", "work", "opt", "scratch"))
    machine = re.compile(rf"(?<![\w.\"'`<>\]])/(?:{roots})/\w")
    registries = re.compile(
        "|".join(re.escape(".".join(parts)) for parts in (("pypi", "org"), ("pythonhosted", "org")))
    )
    for file in tracked():
        if file.suffix in (".png", ".ico"):
            continue
        text = file.read_text(encoding="utf-8")
        found = [folder for folder in folders if folder in text]
        assert not found, f"{file.relative_to(ROOT)} names {found}"
        for pattern in (machine, registries):
            match = pattern.search(text)
            assert match is None, f"{file.relative_to(ROOT)} names {match and match.group()}"


def test_pictures_are_small() -> None:
    for file in tracked("docs/pictures/*"):
        assert os.path.getsize(file) < 300_000, file.name


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert 'license="Apache-2.0"' in (ROOT / "setup.py").read_text(encoding="utf-8")
