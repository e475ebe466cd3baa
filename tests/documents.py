"""Markdown documents as data: links, names of files and fields, commands, Python examples."""

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What `flam COMMAND` runs.
SUBCOMMANDS = {
    "train": "flam_jax.main",
    "evaluate": "flam_jax.evaluation",
    "reproduce": "flam_jax.reproduce",
    "plan": "flam_jax.topology",
    "doctor": "flam_jax.doctor",
}
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FORMER = re.compile(r"^\|[^|]*\|", re.MULTILINE)


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository: those in git and those that will be, or all where there is no git."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]
    skipped = {".git", ".venv", "data", "runs", "build", "dist", "__pycache__"}
    found = [path for pattern in patterns or ("*",) for path in ROOT.rglob(pattern)]
    return [path for path in found if path.is_file() and not skipped & set(path.relative_to(ROOT).parts)]


def read(document: str | Path) -> str:
    """The text of a document; of tables "before | after" only what follows "before", which are names of the past."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.split(r"\n\n", text)
    return "\n\n".join(_FORMER.sub("|", block) if block.startswith("| before |") else block for block in blocks)


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of some languages, in order."""
    return [body for _, language, body in _FENCE.findall(text) if language in languages]


def prose(text: str) -> str:
    """The text without its fenced blocks."""
    return _FENCE.sub("", text)


def spans(text: str) -> list[str]:
    """The code spans."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def links(text: str) -> list[str]:
    """The targets of links and pictures that lie in the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]+`", "", prose(text)))
    return [target for target in targets if "://" not in target]


def anchors(text: str) -> set[str]:
    """What links can point at behind a `#`."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def names_of_paths(text: str) -> set[str]:
    """Code spans that look like a path of the repository: with a slash at the end, or a file's ending."""
    found = {span for span in spans(text) if re.fullmatch(r"[\w./-]+", span)}
    endings = (".py", ".md", ".toml", ".yml", ".json", ".jsonl", ".html", ".npy", "/")
    return {name for name in found if name.endswith(endings) or name.startswith((".ci", "docs/", "tests/"))}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every command of this package in shell blocks, YAML blocks and code spans: `(module, arguments)`."""
    shell = "\n".join(blocks(text, "bash", "sh", "text")).replace("\\\n", " ").splitlines()
    yaml = [re.sub(r"[\[\],]", " ", line) for line in "\n".join(blocks(text, "yaml")).splitlines()]
    for line in [*shell, *yaml, *spans(text)]:
        if "flam" in line:
            yield from _commands_of_line(line)


def _commands_of_line(line: str) -> Iterator[tuple[str, list[str]]]:
    words = shlex.split(line, comments=True) if line.count('"') % 2 == line.count("'") % 2 == 0 else line.split()
    for index, word in enumerate(words):
        if " -m flam_jax" in word:  # a command within an argument
            yield from _commands_of_line(word)
        following = words[index + 1 : index + 2]
        if word == "-m" and following and following[0].startswith("flam_jax"):
            yield following[0], _until_the_end(words[index + 2 :])
        elif word == "flam" and index == 0 and following and not following[0].startswith("-"):
            assert following[0] in SUBCOMMANDS, f"no such command: {line}"
            yield SUBCOMMANDS[following[0]], _until_the_end(words[index + 2 :])


def _until_the_end(words: list[str]) -> list[str]:
    ends = [index for index, word in enumerate(words) if word in ("&&", "||", "|", ";", "...")]
    return words[: ends[0]] if ends else words


def file_of(module: str) -> Path | None:
    """The file of a module of this repository, found without importing it; of a package its `__init__.py`."""
    path = ROOT.joinpath(*module.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def flags_of(module: str) -> set[str]:
    """The flags that the source of a command names."""
    file = file_of(module)
    assert file is not None, module
    source = file.with_name("__main__.py") if file.name == "__init__.py" else file
    return set(re.findall(r"--[a-z][a-z_]*", source.read_text(encoding="utf-8")))


def names_used(code: str, variable: str) -> set[str]:
    """Names that a Python example takes from a variable, as in `variable.name`."""
    nodes = ast.walk(ast.parse(code))
    found = (node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return {node.attr for node in found if isinstance(node.value, ast.Name) and node.value.id == variable}
