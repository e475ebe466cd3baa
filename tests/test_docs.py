"""What the documents say is so: paths, links, fields, flags and commands exist, the README's examples run.

And packages import one way, and every file is sound.
"""

import ast
import importlib
import os
import re
import sys
from pathlib import Path

import pytest

import data_pipelines
import flam_jax
from flam_jax.config import default_config, field_names, load_config
from tests import documents, readme
from tests.documents import ROOT, tracked

# Notes of the studies are parts of pages in `docs/results`, which are checked themselves.
DOCUMENTS = [str(p.relative_to(ROOT)) for p in tracked("*.md") if not p.is_relative_to(ROOT / "flam_jax")]
# Names in documents that stand for what a run makes, not for files of the repository.
MADE = (
    *("config.json", "evaluation.json", "finished.json", "results.json", "results.html", "report.html"),
    *("metrics.jsonl", "log.txt", "median_frame.npy", "card.json", "preview.png"),
)
MADE_FOLDERS = (
    *("tokenizer/", "dynamics/", "tensorboard/", "data/", "runs/", "checkpoints/", "pictures/", "weights/"),
    "damaged/",
)
# Flags of other programs.
FOREIGN_FLAGS = {"--ntasks-per-node", "--gpus-per-task", "--command", "--help", "--version"}
SECTIONS = ("seed", "mesh", "data", "tokenizer", "dynamics", "evaluation", "training")
PYTHON_FILES = tracked("*.py")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_is_named_exists(document: str) -> None:
    names = documents.names_of_paths(documents.read(document)) - {*MADE, *MADE_FOLDERS}
    own = (ROOT / document).parent
    rooms = [own, ROOT, ROOT / "flam_jax", *(ROOT / "flam_jax").iterdir(), ROOT / "data_pipelines"]
    assert {name for name in names if not any((room / name).exists() for room in rooms)} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_within_the_repository_leads_somewhere(document: str) -> None:
    broken = set()
    for link in documents.links(documents.read(document)):
        target, _, anchor = link.partition("#")
        file = ((ROOT / document).parent / target).resolve() if target else ROOT / document
        if not file.exists() or (anchor and anchor not in documents.anchors(documents.read(file))):
            broken.add(link)
    assert broken == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_configuration_field_that_is_named_exists(document: str) -> None:
    """Whole names in code spans, and their ends, such as `training.accumulate`."""
    fields = field_names(default_config())
    wrong = set()
    for span in documents.spans(documents.read(document)):
        match = re.fullmatch(r"(?:--config\.)?([a-z_]+\.[a-z_.]+)(?:=.*)?", span)
        name = match.group(1) if match else ""
        if name.split(".")[0] in SECTIONS and name not in MADE:
            known = any(f".{field}.".find(f".{name}.") >= 0 for field in fields)
            wrong |= set() if known else {span}
    assert wrong == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_is_understood(document: str) -> None:
    """Modules and flags exist; experiments load with their arguments and changes."""
    for module, arguments in documents.commands(documents.read(document)):
        if not module:
            continue
        assert documents.file_of(module) is not None, module
        known, config, changes = documents.flags_of(module), "", {}
        for word in arguments:
            flag, _, value = word.partition("=")
            if flag.startswith("--config."):
                changes[flag.removeprefix("--config.")] = value
            elif flag.startswith("--"):
                assert flag in known, f"{module} does not know {flag}"
                config = value if flag == "--config" else config
        for name in changes:
            assert name in field_names(default_config()) or name.isupper(), name
        if config and config[0] in "em" and not config.isupper():  # a file, or the name of an experiment
            path = config if config.startswith("experiments/") else f"experiments/{config.replace(':', '.py:', 1)}"
            load_config(ROOT / path, overrides=changes)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_flag_that_is_named_is_one_of_a_command(document: str) -> None:
    known = {flag for module in documents.SUBCOMMANDS.values() if module for flag in documents.flags_of(module)}
    named = {span.split("=")[0] for span in documents.spans(documents.read(document)) if re.match(r"--[a-z]", span)}
    named = {flag for flag in named if " " not in flag and not flag.startswith("--config.")}
    assert named - known - FOREIGN_FLAGS == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_module_that_is_named_exists(document: str) -> None:
    """`package.module` and `package.Name` in code spans."""
    public = {f"flam_jax.{name}" for name in flam_jax.__all__} | {f"data_pipelines.{n}" for n in data_pipelines.__all__}
    named = {span.partition("(")[0] for span in documents.spans(documents.read(document))}
    named = {name for name in named if re.fullmatch(r"(flam_jax|data_pipelines)\.[\w.]+", name)}
    assert {name for name in named - public if documents.file_of(name) is None} == set()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_extra_that_is_installed_exists(document: str) -> None:
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    named = re.findall(r"-e \"\.\[([\w,-]+)\]\"", (ROOT / document).read_text(encoding="utf-8"))
    extras = {extra for group in named for extra in group.split(",")}
    assert {extra for extra in extras if not re.search(rf"""\"{extra}\"(: \[|\] = )""", setup)} == set()


@pytest.mark.parametrize("document", ["docs/guide/data.md", "docs/guide/python_api.md"])
def test_python_examples_of_the_guide_use_names_that_exist(document: str) -> None:
    code = "\n".join(documents.blocks(documents.read(document), "python"))
    for package in (flam_jax, data_pipelines):
        assert documents.names_used(code, package.__name__) <= set(package.__all__)
    methods = set(dir(flam_jax.WorldModel))
    assert documents.names_used(code, "wm") | documents.names_used(code, "world_model") <= methods


def test_console_command_is_installed_where_documents_name_it() -> None:
    named = any(span.startswith("flam ") for name in DOCUMENTS for span in documents.spans(documents.read(name)))
    assert not named or re.search(r"\bflam ?= ?flam_jax", (ROOT / "setup.py").read_text(encoding="utf-8"))


def test_every_experiment_is_in_a_command() -> None:
    found = [command for name in DOCUMENTS for command in documents.commands(documents.read(name))]
    used = {word.removeprefix("--config=").split(":")[0] for _, words in found for word in words}
    assert {f"experiments/{path.name}" for path in tracked("experiments/*.py")} <= used


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    pages = [name.removeprefix("docs/") for name in DOCUMENTS if name.startswith("docs/")]
    navigation = re.findall(r"^ *- (?:.*: )?([\w/.-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M)
    assert sorted(navigation) == sorted(pages)


def test_every_decision_is_in_the_index() -> None:
    index = documents.links(documents.read("docs/decisions/README.md"))
    pages = {Path(name).name for name in DOCUMENTS if name.startswith("docs/decisions/")} - {"README.md"}
    assert {link for link in index if "/" not in link} == pages


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 160
    assert max(map(len, lines)) <= 400


def test_ci_installs_what_the_readme_tests_with() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r'/bin/pip" install --quiet --disable-pip-version-check -e "\.\[[\w,]*\btest\b', script)


# The TPU's compiler takes a minute; tests/test_topology.py has shorter plans. Procgen runs from nothing to its report,
# as MultiGrid does for all tests of the group. The study trains two models.
TAKES_LONG = ("flam_jax.topology", "experiments/procgen.py", "flam_jax.reproduce")


@pytest.mark.xdist_group("debug_run")
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=pytest.mark.long if any(word in command for word in TAKES_LONG) else ())
        for number, command in enumerate(readme.commands())
        if number > 0
    ],
)
def test_every_command_of_the_readme_runs(number: int, debug_run: Path) -> None:
    """The first one is run by the fixture. Those that follow find what it left."""
    for words in readme.runnable(readme.commands()[number]):
        assert readme.run(words, debug_run).stdout


@pytest.mark.xdist_group("debug_run")
def test_every_example_of_the_readme_runs(debug_run: Path) -> None:
    """One after the other, as a reader would type them; in a process of its own, without the checks of the tests."""
    code = "\n".join(readme.blocks("python")).replace('"cpu"', '"debug"')
    code += "\nassert video.shape == other_video.shape == (1, frames.shape[1] - context, 64, 64, 3)"
    code += "\nassert frames_ahead.shape == (1, frames.shape[1] - 1, 64, 64, 3)"
    expected = re.findall(r"print\(\w+\)  # (.*)", code)
    assert expected
    done = readme.run([sys.executable, "-c", code], debug_run)
    assert done.stdout.splitlines() == expected


# Packages of flam_jax from the ground up: each imports those on lower lines, and those beside it.
FLOORS = [
    {"axes", "output", "messages", "metrics", "metrics_file", "models", "hlo"},
    {"process", "tokenizer", "pictures"},
    {"surroundings"},
    {"cluster", "config", "dynamics"},
    {"baselines", "checkpoints", "command_line", "doctor", "help"},
    {"build", "reports"},
    {"world_model"},
    {"evaluation"},
    {"training"},
    {"main", "topology"},
    {"studies"},
    {"reproduce"},
    {"console"},
]
# Of data_pipelines what is known of a data set without its data, which any room but the pure ones may ask.
WITHOUT_DATA = {"fields", "registry", "spec", "paths", "locks", "errors", "DataError", "DatasetSpec", "spec_of"}
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
            if package == "data_pipelines" and other not in WITHOUT_DATA:
                assert floor[room] >= floor["evaluation"], f"{file.relative_to(ROOT)} imports {name}"
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
        disk = {"math", "pathlib", "zipfile", "zlib", "data_pipelines.paths"} if file.name == "weights.py" else set()
        allowed = {"flax", "jax", "jaxtyping", "numpy", "collections", "dataclasses", "typing", *disk}
        for name in imports(file):
            known = name in allowed or name.split(".")[0] in allowed
            assert known or name.startswith("flam_jax.evaluation.networks"), f"{file}: {name}"


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
