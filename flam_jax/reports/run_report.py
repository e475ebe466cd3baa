"""`report.html`: one self-contained page of a run, with its numbers, curves and pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flam_jax.checkpoints import write_text
from flam_jax.config import Config, field_names, get_field
from flam_jax.reports.charts import CEILING_COLOR, COLORS, Chart, Line, line_chart
from flam_jax.reports.curves import training_curves
from flam_jax.reports.formats import bounded, count_share, duration, share
from flam_jax.reports.page import png, render
from flam_jax.reports.paper import reported_for_run
from flam_jax.reports.tables import Table

FILE = "report.html"
COMMAND_FILE = "command.txt"  # in the run's folder: the command that made it
SHORT_RUN = 100  # steps of the dynamics below which a run only shows that everything works
# What pictures of evaluators show, by the group that their names begin with.
CAPTIONS = {
    "Rollouts": "True frames above the imagined ones. Below them their difference, and the true frames tinted by the"
    " factor that attends to each patch.",
    "Attention of each factor": "Bright where the factor attends.",
}
PREVIEW = "Data/clips"
# What is scored, by its name in `evaluation.json`: as tables and as charts call it.
SOURCES = {
    "predicted": ("imagined", "imagined"),
    "ceiling": ("tokenizer's reconstruction (ceiling)", "ceiling"),
    "copy_last": ("last frame repeated (floor)", "last frame"),
    "median": ("median frame (floor)", "median frame"),
}
SOURCE_COLORS = {"predicted": COLORS[0], "ceiling": COLORS[2], "copy_last": COLORS[1], "median": CEILING_COLOR}
CHARTS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "moving_psnr": "PSNR of moving pixels, dB",
    "lpips": "LPIPS",
}
PROBES = {
    "chance": "the most frequent answer",
    "position_only": "current cell only",
    "action_linear": "action only, linear probe",
    "action_mlp": "action only, small network",
    "action_and_position": "action and current cell",
}


def write_report(
    config: Config, workdir: str | Path, result: Mapping[str, Any], pictures: Mapping[str, np.ndarray] | None = None
) -> Path:
    """Writes the page into the run's folder.

    Args:
      config: the run's configuration.
      workdir: folder of the run; its `metrics.jsonl` gives the curves of training, its `command.txt` the command.
      result: what `evaluation.json` holds.
      pictures: u8[H W 3] by `group/name`; a group is a section.

    Returns:
      The file's path.
    """
    path, command = Path(workdir) / FILE, Path(workdir) / COMMAND_FILE
    steps = result["steps"].get("dynamics", 0)
    short = (
        f"This run is too short to mean anything: its dynamics were trained for {steps} steps. It shows that everything"
        " works; the numbers say nothing about the model."
    )
    page = render(
        "run.html",
        title=f"{result['model'].upper()} on {result['dataset']}",
        facts=_facts(result) + _origins(config),
        command=command.read_text(encoding="utf-8").strip() if command.is_file() else "",
        short=short if steps < SHORT_RUN else "",
        cards=_cards(result),
        prediction=_prediction(config, result),
        data=_data(result["data"], pictures or {}) if "data" in result else None,
        pictures=_pictures({path: image for path, image in (pictures or {}).items() if path != PREVIEW}),
        agents=_agents(result) if "binding" in result else None,
        entities=_entities(result),
        actions=_actions(result),
        controls=_controls(result["controls"]) if "controls" in result else None,
        not_computed=result.get("not_computed", {}),
        training=training_curves(workdir),
        settings=_settings(config),
    )
    write_text(path, page)
    return path


def _data(card: Mapping[str, Any], pictures: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The data card: what was read, what was left out, and a picture of it."""
    unit, rate = card["unit"], card["frame_rate"]
    rows = [
        ["folder", card["source"]],
        [f"{unit}s used", card["used"]],
        ["video", f"{duration(card['seconds'])} in clips; {card['frames']:,} frames looked at"],
        ["frames a second", f"{rate:g}" if rate else "as in the files"],
        ["clips", ", ".join(f"{count:,} {split}" for split, count in card["clips"].items())],
        ["split by", unit if card["split_by"] == "source" else "time, with a gap between the splits"],
        ["left out of clips", _counted(card["left_out"]) or "nothing"],
        [f"sizes of the {unit}s", _counted(card["sizes"])],
        ["their frames a second", _counted(card["rates"])],
        ["other files", _counted(card["ignored"]) or "none"],
    ]
    rejected = [[name, reason] for name, reason in card["rejected"].items()]
    rejected += [[f"{card['more_rejected']:,} more", "see card.json"]] if card["more_rejected"] else []
    notes = [[name, "; ".join(texts)] for name, texts in card["notes"].items()]
    return {
        "facts": Table(["", ""], rows),
        "rejected": Table([f"{unit}s not used", "why"], rejected) if rejected else None,
        "notes": Table([f"{unit}s with notes", "note"], notes) if notes else None,
        "preview": png(pictures[PREVIEW]) if PREVIEW in pictures else "",
    }


def _counted(counts: Mapping[str, int], most: int = 8) -> str:
    """A histogram in words, its greatest entries."""
    told = [f"{name} ({count:,})" for name, count in list(counts.items())[:most] if count]
    return ", ".join(told) + (f" and {len(counts) - most} more" if len(counts) > most else "")


def _facts(result: Mapping[str, Any]) -> list[str]:
    skipped = result["rollout"].get("skipped_clips", 0)
    return [
        f"split: {result['split']}, {result['rollout']['clips']} clips"
        + (f", {skipped} of them in place of unreadable ones" if skipped else ""),
        f"seed {result['seed']}",
        "steps: " + ", ".join(f"{stage} {count:,}" for stage, count in result["steps"].items()),
        "time: " + ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in result["seconds"].items()),
        result["device"],
        f"run {result['identity']}",
    ]


def _origins(config: Config) -> list[str]:
    """What was taken from other runs."""
    tokenizer, dynamics = config.tokenizer.restore_from, config.dynamics.restore_from
    told = [f"tokenizer of {tokenizer}"] if tokenizer else []
    return [*told, f"dynamics gone on from {dynamics}"] if dynamics else told


def _cards(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    rollout, actions = result["rollout"], result["actions"]
    psnr, ceiling = rollout["psnr"], rollout["ceiling_psnr"]
    cards = [
        ("PSNR, mean", f"{rollout['psnr_mean']:.1f} dB", f"ceiling {rollout['ceiling_psnr_mean']:.1f}"),
        ("PSNR, first step", f"{psnr[0]:.1f} dB", f"{ceiling[0] - psnr[0]:.1f} below the ceiling"),
        (f"PSNR, step {len(psnr)}", f"{psnr[-1]:.1f} dB", f"{ceiling[-1] - psnr[-1]:.1f} below the ceiling"),
        ("SSIM, mean", bounded(rollout["ssim_mean"], 3), f"ceiling {bounded(rollout['ceiling_ssim_mean'], 3)}"),
    ]
    if _is_number(rollout["lpips_mean"]):
        note = f"ceiling {rollout['ceiling_lpips_mean']:.3f}"
        cards.append(("LPIPS, mean", f"{rollout['lpips_mean']:.3f}", note))
    if _is_number(rollout["fvd"]):
        cards.append(("FVD", f"{rollout['fvd']:.1f}", f"ceiling {rollout['ceiling_fvd']:.1f}"))
    if "binding" in result:
        binding = result["binding"]
        own = "each agent has its own slot" if binding["distinct"] else "agents share slots"
        cards.append(("Attention on agents", bounded(min(binding["attention"]), 2), f"lowest; {own}"))
        cards.append(("Position probe", share(binding["probe_accuracy"]), "linear, from matched slots"))
    if "segmentation" in result:
        cards.append(("FG-ARI", bounded(result["segmentation"]["fg_ari"], 2), "masks of the factors, true masks"))
    if "positions" in result:
        cards.append(("Position R²", f"{result['positions']['r2']:.2f}", "linear, from matched slots"))
    if "entities" in result:
        lost = result["entities"]["lost"]
        cards.append((f"Entities lost, step {len(lost)}", share(lost[-1]), "dissolved or doubled in the rollout"))
    if "control" in result:
        note = f"other entities disturbed: {share(result['control']['disturbed'])}"
        cards.append(("Moves followed", share(result["control"]["followed"]), note))
    units = f"{actions['active_units']} of {actions['units']} units active"
    cards.append(("KL, nats a frame", f"{actions['kl']:.1f}", units))
    return cards


def _prediction(config: Config, result: Mapping[str, Any]) -> dict[str, Any]:
    rollout = result["rollout"]
    scored = {key: name for key, name in (("lpips_mean", "LPIPS mean"), ("fvd", "FVD")) if _is_number(rollout[key])}
    last = len(rollout["psnr"])
    shown = sorted({1, (last + 1) // 2, last})
    head = ["", *(f"PSNR step {step}" for step in shown), "PSNR mean", "SSIM mean", "PSNR of moving pixels"]
    rows: list[list[Any]] = []
    for source, (name, _) in SOURCES.items():
        prefix = _prefix(source)
        row: list[Any] = [name, *(f"{rollout[f'{prefix}psnr'][step - 1]:.2f}" for step in shown)]
        row += [f"{rollout[f'{prefix}psnr_mean']:.2f}", bounded(rollout[f"{prefix}ssim_mean"], 4)]
        row += [f"{rollout[f'{prefix}moving_psnr_mean']:.2f}"]
        rows.append(row + [f"{rollout[prefix + key]:.{1 if key == 'fvd' else 4}f}" for key in scored])
    size, reported = reported_for_run(result["dataset"], result["model"])
    if {"psnr_mean", *scored} & set(reported):
        numbers = [f"{reported[key]:g}" if key in reported else None for key in ("psnr_mean", "", "", *scored)]
        rows.append([f"the paper ({size})", *([None] * len(shown)), *numbers])
    if "lpips_mean" in scored:
        note = f"LPIPS ({config.evaluation.lpips_backbone}): less is better. "
    else:
        note = f"LPIPS: {rollout['lpips']}. "
    if "fvd" in scored:
        note += f"FVD is estimated from {rollout['clips']} clips: less is better; fewer clips make it greater."
    else:
        note += f"FVD: {rollout['fvd']}."
    if "feature_error_mean" in rollout:
        note += (
            f" Mean squared error of the features: {rollout['feature_error_mean']:.4f}; of the last ones repeated:"
            f" {rollout['copy_last_feature_error_mean']:.4f}."
        )
    charts = [_by_step(metric, rollout) for metric in CHARTS if metric != "lpips" or "lpips_mean" in scored]
    return {"note": note, "table": Table([*head, *scored.values()], rows), "charts": charts}


def _by_step(metric: str, rollout: Mapping[str, Any]) -> Chart:
    """A score by step; the ceiling is wide and pale, so that it shows below a model that reaches it."""
    lines = [
        Line(
            short,
            range(1, len(rollout[metric]) + 1),
            rollout[_prefix(source) + metric],
            SOURCE_COLORS[source],
            dashed=source in ("copy_last", "median"),
            wide=source == "ceiling",
            dots=source == "predicted",
        )
        for source, (_, short) in SOURCES.items()
    ]
    return line_chart(CHARTS[metric], lines, "step")


def _prefix(source: str) -> str:
    return "" if source == "predicted" else f"{source}_"


def _is_number(value: Any) -> bool:
    return not isinstance(value, str)


def _pictures(pictures: Mapping[str, np.ndarray]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Heading, caption, and addresses with names, of every group."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, image in pictures.items():
        group, _, name = path.partition("/")
        groups.setdefault(group, []).append((png(image), name))
    return [(group, CAPTIONS.get(group, ""), images) for group, images in groups.items()]


def _agents(result: Mapping[str, Any]) -> dict[str, Table]:
    binding, cells = result["binding"], result.get("cells", {})
    wrong = cells.get("predicted", {})
    leak = result["actions"].get("leak", {}).get("position", {}).get("action_mlp_per_agent")
    head = ["agent", "factor", "attention on it", "share of its cell", "position probe", "next cell from action alone"]
    head += [f"{kind} cells wrong" for kind in wrong]
    rows: list[list[Any]] = []
    for agent, slot in enumerate(binding["slots"]):
        rows.append(
            [
                f"agent {agent}",
                slot if slot >= 0 else None,
                bounded(binding["attention"][agent], 3),
                bounded(binding["cover"][agent], 3),
                share(binding["probe_per_agent"][agent]),
                share(leak and leak[agent]),
                *(count_share(part["per_agent"][agent]) for part in wrong.values()),
            ]
        )
    means = [bounded(float(np.mean(binding[key])), 3) for key in ("attention", "cover")]
    probes = [share(binding["probe_accuracy"]), share(leak and float(np.mean(leak)))]
    rows.append(["all", None, *means, *probes, *(count_share(part["wrong"]) for part in wrong.values())])
    if cells:
        ceiling = [count_share(part["wrong"]) for part in cells["ceiling"].values()]
        rows.append(["tokenizer's reconstruction", *([None] * 5), *ceiling])
    names = ("disentanglement", "completeness", "informativeness")
    found = [result["dci"][name] for name in names]
    numbers = [["this model", *(value if isinstance(value, str) else bounded(value, 3) for value in found)]]
    size, reported = reported_for_run(result["dataset"], result["model"])
    if set(names) <= set(reported):
        numbers.append([f"the paper ({size})", *(f"{reported[name]:.2f}" for name in names)])
    return {"table": Table(head, rows), "dci": Table(["", *names], numbers)}


def _entities(result: Mapping[str, Any]) -> list[Table]:
    """Segmentation, positions in pixels, entities in rollouts and under chosen actions, where the data have them."""
    tables = []
    if "segmentation" in result:
        found = result["segmentation"]
        numbers = [bounded(found[name], 3) for name in ("fg_ari", "ari", "miou")]
        head = ["FG-ARI", "ARI", "mIoU", "switches of slots in 100 frames"]
        tables.append(Table(head, [[*numbers, f"{found['switches']:.1f}"]]))
    if "positions" in result:
        found = result["positions"]
        head = ["", *(f"entity {number}" for number in range(len(found["slots"]))), "all"]
        slots = ["factor", *(slot if slot >= 0 else None for slot in found["slots"]), None]
        scores = [f"{value:.3f}" for value in (*found["r2_per_entity"], found["r2"])]
        tables.append(Table(head, [slots, ["R² of the position, linear", *scores]]))
    if "entities" in result:
        found = result["entities"]
        head = ["share of the entities", *(f"step {step + 1}" for step in range(len(found["lost"])))]
        rows = [[name, *(share(value) for value in found[name])] for name in ("dissolved", "doubled")]
        tables.append(Table(head, rows))
    if "control" in result:
        found = result["control"]
        head = ["", *(f"move {number}" for number in range(len(found["followed_per_move"]))), "all"]
        followed = [share(value) for value in (*found["followed_per_move"], found["followed"])]
        disturbed = [*(None for _ in found["followed_per_move"]), share(found["disturbed"])]
        tables.append(Table(head, [["entities that follow", *followed], ["others disturbed", *disturbed]]))
    return tables


def _actions(result: Mapping[str, Any]) -> dict[str, Any]:
    actions = result["actions"]
    factors = list(zip(actions["kl_per_factor"], actions["active_units_per_factor"], strict=True))
    head = ["", *(f"factor {k}" for k in range(len(factors))), "all"]
    rows = [
        ["KL, nats a frame", *(f"{kl:.2f}" for kl, _ in factors), f"{actions['kl']:.2f}"],
        ["active units", *(units for _, units in factors), actions["active_units"]],
    ]
    gain = actions["shuffle_gain"]
    return {
        "shuffle": gain if isinstance(gain, str) else f"{1 + gain:,.{2 if gain < 9 else 0}f} times its own",
        "factors": Table(head, rows),
        "leak": _leak(actions["leak"]) if "leak" in actions else None,
        "clusters": _clusters(actions) if "clusters" in actions else None,
        "transfer": _transfer(actions["transfer"], result["rollout"]) if "transfer" in actions else None,
    }


def _controls(found: Mapping[str, Any]) -> Table:
    """Continuous actions and states: R² of each of their values."""
    names = {"action": "true action, from latent actions", "state": "measured state, from slots"}
    rows = []
    for key, name in names.items():
        if f"{key}_r2" in found:
            each = " ".join("–" if value is None else f"{value:.2f}" for value in found[f"{key}_r2_each"])
            mean = found[f"{key}_r2"]
            rows.append([name, None if mean is None else f"{mean:.2f}", each])
    return Table(["R² of a linear regression", "mean", "of each value"], rows)


def _leak(leak: Mapping[str, Any]) -> Table:
    kinds = ("position", "move", "true_action")
    rows = [[name, *(share(leak[kind][key]) for kind in kinds)] for key, name in PROBES.items()]
    return Table(["input of the probe", "next cell", "move", "true action"], rows)


def _clusters(actions: Mapping[str, Any]) -> dict[str, Any]:
    found, directed = actions["clusters"], actions.get("direction_aware_clusters")
    note = (
        "Latent actions of an agent are clustered without labels, as many clusters as there are true actions (or one "
        "for each code), and the clusters are matched to the true actions one to one. Cluster accuracy: "
        f"{share(found['accuracy'])}; one cluster for all: {share(found['chance'])}."
    )
    if directed is not None:
        note += (
            " Direction-aware cluster accuracy has a cluster for every action in each of four directions, and for a "
            f"step that is blocked: {share(directed['accuracy'])}; one cluster for all: {share(directed['chance'])}."
        )
    confusion = found["confusion"]
    rows = [[f"true action {true}", *(share(part) for part in parts)] for true, parts in enumerate(confusion)]
    head = ["", *(f"cluster of action {number}" for number in range(len(confusion))), "other clusters"]
    return {"note": note, "table": Table(head, rows)}


def _transfer(found: Mapping[str, Any] | str, rollout: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(found, str):
        return {"note": f"{found[:1].upper()}{found[1:]}.", "table": None}
    sources = {
        "the clip's own": rollout,
        "the displaced clip's": found,
        "another clip's, other true actions": found["exchanged"],
    }
    rows = [
        [name, *(f"{values[key]:.2f}" for key in ("psnr_mean", "moving_psnr_mean"))] for name, values in sources.items()
    ]
    return {
        "note": f"{share(found['displaced'])} of the agents are displaced; for the others there is no other place.",
        "table": Table(["latent actions", "PSNR, dB", "PSNR of moving pixels, dB"], rows),
    }


def _settings(config: Config) -> list[Table]:
    groups: dict[str, list[list[Any]]] = {}
    for name in field_names(config):
        groups.setdefault(name.split(".")[0], []).append([name, str(get_field(config, name))])
    return [Table([group, ""], rows) for group, rows in groups.items()]


__all__ = ["COMMAND_FILE", "FILE", "write_report"]
