"""Writes the documents of all recorded studies: a page a study with its charts, and an index with the claims.

    python -m flam_jax.studies.results --records=docs/records --out=docs/results

    --records    folder of the records: <preset>/<column>/<row>/seed<N>/evaluation.json
    --out        folder of the documents

What the pages say beside their tables stands in flam_jax/studies/notes; numbers in it are computed from the records.
"""

import dataclasses
import functools
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flam_jax.command_line import read_flags
from flam_jax.config import ConfigError
from flam_jax.messages import print_error
from flam_jax.reports import study_tables
from flam_jax.reports.charts import Chart
from flam_jax.reports.formats import with_interval
from flam_jax.studies.definitions import PRESETS, STUDIES, cells
from flam_jax.studies.run import finished_run, study_command
from flam_jax.studies.summary import study_result

USAGE = "python -m flam_jax.studies.results --records=FOLDER --out=FOLDER"
INDEX = "README.md"
NOTES = Path(__file__).parent / "notes"
SHOWN = (
    *("psnr_mean", "below_ceiling", "psnr_last", "transfer_psnr_mean", "kl"),
    *("disentanglement", "completeness", "informativeness", "cover"),
    *("true_action", "true_action_mlp", "direction_aware_clusters", "entered_wrong", "entered_wrong_worst"),
    "total_seconds",
)
OF_EVERY_SEED = ("psnr_mean", "transfer_psnr_mean", "kl", "cover")
# Charts of a page, by study; of others the PSNR by step.
CHARTS = {"sweeps": ("factors", "beta"), "information": ("information",), "agents": ()}
INTERVALS = (
    "Means over seeds ± half of the 95 % confidence interval (Student's t); differences likewise (Welch's t), in bold "
    "where the interval leaves out zero. PSNR in dB, over the steps of a rollout. The paper's figures are of its own "
    "sizes and corpora."
)


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What notes may ask of the records, by study, column and key of the row."""

    results: Mapping[str, Mapping[str, Any]]

    def mean(self, study: str, column: str, row: str, name: str) -> str:
        """Mean and interval of a number."""
        result = self.results[study]
        entry = result["columns"][column][row]["numbers"][name]
        return study_tables.number_text(result, name, entry["mean"], entry["half_width"])

    def gap(self, study: str, column: str, row: str, name: str) -> str:
        """The row that this one is compared with, less this one."""
        result = self.results[study]
        entry = result["differences"][column][row]["numbers"][name]
        return with_interval(-entry["mean"], entry["half_width"], result["numbers"][name]["digits"])

    def equal_kl(self, study: str, column: str, row: str) -> str:
        """PSNR of the first row at the KL of this one, less its own."""
        mean, half = self.results[study]["at_equal_kl"][column][row]["means"]["difference"]
        return with_interval(-mean, half, 2)


def load(records: Path, preset: str, study: str) -> dict[str, Any] | None:
    """A study as its `results.json` would have it, of the runs that are recorded; None where there are none."""
    finished = []
    for cell in cells(study, preset):
        file = records / preset / cell.folder / "evaluation.json"
        if file.is_file():
            result = json.loads(file.read_text(encoding="utf-8"))
            finished.append(finished_run(cell, cell.config({}), result))
    command = study_command(study, preset, "--jobs=2", "--workdir=runs/study")
    return study_result(study, preset, command, finished) if finished else None


def documents(records: Path) -> dict[str, str]:
    """Every document by its file's name.

    Args:
      records: folder of the records.
    """
    found, pages, claims = {}, {}, ""
    for preset in PRESETS:
        known = {(study, preset) for study in STUDIES if (study, preset) != ("procgen", "gpu")}
        results = {study: load(records, preset, study) for study in STUDIES if (study, preset) in known}
        results = {study: result for study, result in results.items() if result}
        for study, result in results.items():
            page, charts = study_document(result, Numbers(results))
            found[f"{study}_{preset}.md"] = page
            found |= {name: chart.svg for name, chart in charts.items()}
            pages[f"{study}_{preset}.md"] = _purpose(study)
        if preset == "cpu" and results:
            claims = _notes("claims", Numbers(results))[""]
    index = "\n".join(f"- [`{name}`]({name}): {purpose}" for name, purpose in pages.items())
    found[INDEX] = (
        f"# Results\n\n{claims}\n\n## Pages\n\n{index}\n"
        "- [`other_measurements.md`](other_measurements.md): single runs, speeds, other sizes and Procgen, which are "
        "not in the records.\n\n"
        "The records are the `evaluation.json` of every run, in `docs/records`. These pages are made from them by\n\n"
        "```bash\npython -m flam_jax.studies.results --records=docs/records --out=docs/results\n```\n"
    )
    return found


def study_document(result: Mapping[str, Any], numbers: Numbers) -> tuple[str, dict[str, Chart]]:
    """The page of a study in Markdown, and its charts by their files' names."""
    study, preset = result["study"], result["preset"]
    notes, charts, parts = _notes(study, numbers), {}, []

    def show(name: str, chart: Chart) -> None:
        charts[f"{study}_{preset}_{name}.svg"] = chart
        parts.append(f"![{chart.title}]({study}_{preset}_{name}.svg)")

    parts += [f"# Study `{study}`, preset `{preset}`", _purpose(study), f"```bash\n{result['command']}\n```", INTERVALS]
    parts.append(notes.get("", ""))
    by_agents = study_tables.by_agents(result) if study == "agents" else None
    if by_agents:
        show("agents", by_agents)
    for column in result["columns"]:
        parts += [f"## {column}", study_tables.bounds(result, column), notes.get(column, "")]
        parts.append(study_tables.means(result, column, SHOWN).markdown())
        for title, table in (
            ("Differences", study_tables.differences(result, column)),
            ("PSNR at equal KL", study_tables.at_equal_kl(result, column)),
            ("Every seed", study_tables.every_seed(result, column, OF_EVERY_SEED)),
        ):
            parts += [f"### {title}", table.markdown()] if table else []
        drawn = study_tables.column_charts(result, column)
        for name in CHARTS.get(study, ("steps",)):
            if name in drawn:
                show(f"{column}_{name}", drawn[name])
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n", charts


def _purpose(study: str) -> str:
    """The first lines of the study's docstring, without what it names in brackets."""
    return " ".join(re.sub(r" \((?:PAPER|ours)[^)]*\)", "", " ".join((STUDIES[study].__doc__ or "").split())).split())


def _notes(name: str, numbers: Numbers) -> dict[str, str]:
    """The notes of a study by column, those of the whole study under ""; empty where there is no file."""
    file = NOTES / f"{name}.md"
    if not file.is_file():
        return {}
    functions = {call: getattr(numbers, call) for call in ("mean", "gap", "equal_kl")}
    text = _environment().from_string(file.read_text(encoding="utf-8")).render(functions)
    first, *others = text.split("\n## ")
    return {"": first.strip()} | {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in others}


@functools.cache
def _environment() -> Any:
    import jinja2

    return jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # Markdown


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit status."""
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return 0
    try:
        options, _ = read_flags(arguments, USAGE, required=("--records", "--out"), optional=())
        records, out = Path(options["--records"]), Path(options["--out"])
        if not any((records / preset).is_dir() for preset in PRESETS):
            raise ConfigError(f"--records: no folder of a preset in {records}")
    except ConfigError as error:
        print_error("flam_jax.studies.results", error)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for name, text in documents(records).items():
        (out / name).write_text(text, encoding="utf-8")
        print(out / name)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
