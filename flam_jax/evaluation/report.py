"""`report.html`: one self-contained page with everything that a run is worth, in numbers, curves and pictures."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flam_jax import pictures
from flam_jax.checkpoints import write_text
from flam_jax.config import Config
from flam_jax.evaluation import rollouts as rolling
from flam_jax.evaluation.charts import Line, line_chart
from flam_jax.evaluation.curves import training_curves
from flam_jax.evaluation.style import STYLE
from flam_jax.schema import field_names, get_field
from flam_jax.world_model import WorldModel

FILE = "report.html"
COLORS = {"predicted": "#2563c9", "ceiling": "#2e9e5b", "copy_last": "#c77d11", "median": "#9a9a9a"}
NAMES = {
    "predicted": "imagined",
    "ceiling": "tokenizer's reconstruction (ceiling)",
    "copy_last": "last frame repeated (floor)",
    "median": "median frame (floor)",
}
# What the paper reports for the same data (PAPER: protocol and results). Sizes, corpora and training differ.
PAPER_PSNR = {"multigrid 4 agents": "56.5 (128x128)"}
PAPER_PROBE = "0.93 (128x128)"
PAPER_DCI = ("0.91", "0.91", PAPER_PROBE)


def write_report(
    config: Config, workdir: str | Path, result: dict[str, Any], world_model: WorldModel, dataset: Any
) -> Path:
    """Writes the page into the run's folder.

    Args:
      config: the run's configuration.
      workdir: folder of the run; its `metrics.jsonl` gives the curves of training.
      result: what `evaluate` returns.
      world_model: the model, for pictures.
      dataset: the data set; clips of the scored split are shown.

    Returns:
      The file's path.
    """
    path = Path(workdir) / FILE
    sections = [
        _header(result),
        _prediction(config, result),
        _pictures(config, result, world_model, dataset),
        _agents(result),
        _actions(result),
        training_curves(workdir),
        _settings(config),
    ]
    title = html.escape(f"{result['model']} on {result['dataset']}")
    body = "\n".join(sections)
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n",
    )
    return path


def png(picture: UInt8[np.ndarray, "H W 3"], caption: str) -> str:
    """An inline image with a caption."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'


class Markup(str):
    """HTML that a table takes as it is; any other text is escaped."""


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """An HTML table; the first column is text, the others are numbers."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{lines}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"
    return html.escape(str(value))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _card(name: str, value: str, note: str = "") -> str:
    return f'<div class="card"><span>{html.escape(name)}</span><b>{value}</b><small>{html.escape(note)}</small></div>'


def _header(result: dict[str, Any]) -> str:
    rollout, actions = result["rollout"], result["actions"]
    psnr, ceiling = rollout["psnr"], rollout["ceiling_psnr"]
    cards = [
        _card("PSNR, mean", f"{rollout['psnr_mean']:.1f} dB", f"ceiling {rollout['ceiling_psnr_mean']:.1f}"),
        _card("PSNR, first step", f"{psnr[0]:.1f} dB", f"{ceiling[0] - psnr[0]:.1f} below the ceiling"),
        _card(f"PSNR, step {len(psnr)}", f"{psnr[-1]:.1f} dB", f"{ceiling[-1] - psnr[-1]:.1f} below the ceiling"),
        _card("SSIM, mean", f"{rollout['ssim_mean']:.3f}", f"ceiling {rollout['ceiling_ssim_mean']:.3f}"),
    ]
    if _is_number(rollout["lpips_mean"]):
        cards.append(
            _card("LPIPS, mean", f"{rollout['lpips_mean']:.3f}", f"ceiling {rollout['ceiling_lpips_mean']:.3f}")
        )
    if _is_number(rollout["fvd"]):
        cards.append(_card("FVD", f"{rollout['fvd']:.1f}", f"ceiling {rollout['ceiling_fvd']:.1f}"))
    if "binding" in result:
        binding = result["binding"]
        own = "every agent has its own slot" if binding["distinct"] else "agents share slots"
        cards.append(_card("Attention on agents", f"{min(binding['attention']):.2f}", f"lowest; {own}"))
        cards.append(_card("Position probe", _share(binding["probe_accuracy"]), "linear, from matched slots"))
    units = f"{actions['active_units']} of {actions['units']} units active"
    cards.append(_card("KL, nats a frame", f"{actions['kl']:.1f}", units))
    skipped = rollout.get("skipped_clips", 0)
    facts = [
        f"split: {result['split']}, {rollout['clips']} clips"
        + (f", {skipped} of them in place of some that cannot be read" if skipped else ""),
        f"seed {result['seed']}",
        "steps: " + ", ".join(f"{stage} {count:,}" for stage, count in result["steps"].items()),
        "time: " + ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in result["seconds"].items()),
        result["device"],
        f"configuration {result['config_hash']}",
    ]
    line = " · ".join(html.escape(fact) for fact in facts)
    title = html.escape(f"{result['model'].upper()} on {result['dataset']}")
    return f'<header><h1>{title}</h1><p class="note">{line}</p></header><div class="cards">{"".join(cards)}</div>'


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _prediction(config: Config, result: dict[str, Any]) -> str:
    rollout = result["rollout"]
    judged = {key: name for key, name in (("lpips_mean", "LPIPS mean"), ("fvd", "FVD")) if _is_number(rollout[key])}
    last = len(rollout["psnr"])
    shown = sorted({1, (last + 1) // 2, last})
    head = ["", *(f"PSNR step {step}" for step in shown), "PSNR mean", "SSIM mean", "PSNR of moving pixels"]
    head += judged.values()
    rows: list[list[Any]] = []
    for source, name in NAMES.items():
        prefix = "" if source == "predicted" else f"{source}_"
        numbers = [f"{rollout[f'{prefix}psnr'][step - 1]:.2f}" for step in shown]
        means = (f"{rollout[f'{prefix}psnr_mean']:.2f}", f"{rollout[f'{prefix}ssim_mean']:.4f}")
        rows.append([name, *numbers, *means, f"{rollout[f'{prefix}moving_psnr_mean']:.2f}"])
        rows[-1] += [f"{rollout[prefix + key]:.{1 if key == 'fvd' else 4}f}" for key in judged]
    paper = next((value for name, value in PAPER_PSNR.items() if result["dataset"].startswith(name)), None)
    if paper:
        rows.append(["paper, FLAM", *([None] * len(shown)), paper, *([None] * (2 + len(judged)))])
    steps = range(1, last + 1)
    charts = []
    metrics = [("psnr", "PSNR, dB"), ("ssim", "SSIM"), ("moving_psnr", "PSNR of moving pixels, dB")]
    metrics += [("lpips", "LPIPS")] if "lpips_mean" in judged else []
    for metric, name in metrics:
        keys = {source: metric if source == "predicted" else f"{source}_{metric}" for source in NAMES}
        short = {"predicted": "imagined", "ceiling": "ceiling", "copy_last": "copy last", "median": "median frame"}
        lines = [
            Line(short[source], list(steps), rollout[key], COLORS[source], source != "predicted", source == "predicted")
            for source, key in keys.items()
        ]
        charts.append(line_chart(name, lines, "step"))
    note = (
        "Latent actions are inferred from the true frames, then the frames are imagined from the context on, in "
        "feature space. Scores are averaged over frames. Moving pixels are those that differ from the true frame "
        "before. "
    )
    if "lpips_mean" in judged:
        note += f"LPIPS ({config.evaluation.lpips_backbone}): less is better. "
    else:
        note += f"LPIPS: {rollout['lpips']}. "
    if "fvd" in judged:
        note += f"FVD is estimated from {rollout['clips']} clips: less is better, and fewer clips make it more."
    else:
        note += f"FVD: {rollout['fvd']}."
    body = table(head, rows) + f'<div class="charts">{"".join(charts)}</div>'
    return f"<section><h2>Prediction</h2><p>{html.escape(note)}</p>{body}</section>"


def _is_number(value: Any) -> bool:
    return not isinstance(value, str)


def _pictures(config: Config, result: dict[str, Any], world_model: WorldModel, dataset: Any) -> str:
    settings = config.evaluation
    if not settings.num_pictures:
        return ""
    source = dataset.split(result["split"])
    clips = rolling.choose(len(source), settings.num_pictures)
    length = settings.context + settings.steps
    rows: list[str] = []
    slots: list[str] = []
    for record, count in rolling.batches(source, clips, settings.batch_size, length):
        frames = record["frames"]
        given = rolling.told(world_model, record)
        part = rolling.roll_out(world_model, frames, jnp.asarray(dataset.blank), settings.context, given)
        predicted, masks = np.asarray(part.predicted), np.asarray(part.observation.attention)
        for i in range(count):
            number = clips[len(rows)]
            rows.append(png(pictures.rollout_picture(frames[i], predicted[i], masks[i]), f"clip {number}"))
            if len(slots) < 2:
                slots.append(png(pictures.slot_picture(frames[i], masks[i]), f"clip {number}"))
    return (
        "<section><h2>Rollouts</h2><p>True frames above the imagined ones. Below them their difference, and the true "
        "frames tinted by which factor attends where.</p>" + "".join(rows) + "</section>"
        "<section><h2>What each factor sees</h2><p>Bright where the factor attends.</p>" + "".join(slots) + "</section>"
    )


def _agents(result: dict[str, Any]) -> str:
    if "binding" not in result:
        return ""
    binding, wrong = result["binding"], result["cells"]["predicted"]
    leak = result["actions"].get("leak", {}).get("position", {}).get("action_mlp_per_agent")
    head = [
        "agent",
        "factor",
        "attention on it",
        "share of its cell",
        "position probe",
        "next place from its action alone",
    ]
    head += [f"{kind} cells wrong" for kind in wrong]
    rows: list[list[Any]] = []
    for agent, slot in enumerate(binding["slots"]):
        shares = [_share(part["per_agent"][agent]) for part in wrong.values()]
        own = (
            f"{binding['attention'][agent]:.3f}",
            f"{binding['cover'][agent]:.3f}",
            _share(binding["probe_per_agent"][agent]),
            _share(leak and leak[agent]),
        )
        rows.append([f"agent {agent}", slot if slot >= 0 else None, *own, *shares])
    overall = [_share(part["wrong"]) for part in wrong.values()]
    mean, cover = (f"{np.mean(binding[key]):.3f}" for key in ("attention", "cover"))
    rows.append(
        ["all", None, mean, cover, _share(binding["probe_accuracy"]), _share(leak and float(np.mean(leak))), *overall]
    )
    ceiling = [_share(part["wrong"]) for part in result["cells"]["ceiling"].values()]
    rows.append(["tokenizer's reconstruction", *([None] * 5), *ceiling])
    if result["dataset"].startswith("multigrid 4 agents"):
        rows.append(["paper, FLAM", None, None, None, PAPER_PROBE, *([None] * (1 + len(wrong)))])
    note = (
        "Attention is normalised over the patches of each factor: the share of what an agent's factor reads that lies "
        "on the agent's cell. Beside it the share of the cell that is this factor's. Factors and agents are matched "
        "one to one. A cell is wrong when it looks most like another tile than the true one."
    )
    dci = result["dci"]
    names = ("disentanglement", "completeness", "informativeness")
    numbers = [["this model", *(dci[name] if isinstance(dci[name], str) else f"{dci[name]:.3f}" for name in names)]]
    if result["dataset"].startswith("multigrid 4 agents"):
        numbers.append(["paper, FLAM", *PAPER_DCI])
    both = table(head, rows) + table(["", *names], numbers)
    return f"<section><h2>Agents</h2><p>{note}</p>{both}</section>"


def _actions(result: dict[str, Any]) -> str:
    actions = result["actions"]
    factors = list(zip(actions["kl_per_factor"], actions["active_units_per_factor"], strict=True))
    head = ["", *(f"factor {k}" for k in range(len(factors))), "all"]
    rows = [
        ["KL, nats a frame", *(f"{kl:.2f}" for kl, _ in factors), f"{actions['kl']:.2f}"],
        ["active units", *(units for _, units in factors), actions["active_units"]],
    ]
    gain = actions["shuffle_gain"]
    text = gain if isinstance(gain, str) else f"{1 + gain:,.{2 if gain < 9 else 0}f} times as much"
    body = f"<p>Error of one step with another clip's actions: {html.escape(text)}.</p>" + table(head, rows)
    if "leak" in actions:
        leak = actions["leak"]
        names = {
            "chance": "the most frequent answer",
            "position_only": "current cell only",
            "action_linear": "action only, linear",
            "action_mlp": "action only, small network",
            "action_and_position": "action and current cell",
        }
        kinds = ("position", "move", "true_action")
        rows = [[name, *(_share(leak[kind][key]) for kind in kinds)] for key, name in names.items()]
        body += (
            "<h3>Leak</h3><p>What probes read from an agent's latent action. An honest action tells the move and the "
            "true action, which the model never saw, and the next cell only together with the current one.</p>"
            + table(["read from", "next cell right", "move right", "true action right"], rows)
        )
    if "clusters" in actions:
        body += _map(actions["clusters"], actions.get("direction_aware_clusters"))
    if "transfer" in actions:
        body += _transfer(actions["transfer"], result["rollout"])
    return f"<section><h2>Latent actions</h2>{body}</section>"


def _map(found: dict[str, Any], directed: dict[str, Any] | None) -> str:
    confusion = found["confusion"]
    rows = [[f"true action {true}", *(_share(share) for share in shares)] for true, shares in enumerate(confusion)]
    text = (
        "Latent actions of an agent grouped without any label, as many groups as there are true actions (or by their "
        "code), and the groups matched to the true actions one to one. Right in "
        f"{_share(found['accuracy'])} of the frames; one group for everything would be in {_share(found['chance'])}."
    )
    if directed is not None:
        text += (
            " With a group for every action in each of the four directions, and for a step that something blocked: "
            f"right in {_share(directed['accuracy'])} of the frames, one group for everything in "
            f"{_share(directed['chance'])}."
        )
    head = ["", *(f"group of action {number}" for number in range(len(confusion))), "other groups"]
    return f"<h3>Groups</h3><p>{text}</p>" + table(head, rows)


def _transfer(found: dict[str, Any] | str, rollout: dict[str, Any]) -> str:
    text = (
        "Rollouts under actions that were inferred from another clip, in which the agents do the same in other places. "
        "An action that tells where things are is worth less there."
    )
    if isinstance(found, str):
        return f"<h3>Transfer</h3><p>{text} {html.escape(found)}.</p>"
    text += f" {_share(found['displaced'])} of the agents are elsewhere; for the others there is no other place."
    sources = {
        "the clip's own": rollout,
        "of the clip in which the same is done": found,
        "of a clip in which something else is done": found["exchanged"],
    }
    keys = ("psnr_mean", "moving_psnr_mean")
    rows = [[name, *(f"{values[key]:.2f}" for key in keys)] for name, values in sources.items()]
    return f"<h3>Transfer</h3><p>{text}</p>" + table(["actions", "PSNR, dB", "PSNR of moving pixels, dB"], rows)


def _settings(config: Config) -> str:
    groups: dict[str, list[list[Any]]] = {}
    for name in field_names(config):
        groups.setdefault(name.split(".")[0], []).append([name, str(get_field(config, name))])
    tables = "".join(table([group, ""], rows) for group, rows in groups.items())
    command = "python -m flam_jax.evaluation --workdir=WORKDIR"
    return (
        f"<section><h2>Settings</h2><p>This page is made again by <code>{command}</code>.</p>"
        f"<details><summary>All fields</summary><div class='settings'>{tables}</div></details></section>"
    )


__all__ = ["FILE", "Markup", "png", "table", "write_report"]
