"""What the paper reports (arXiv 2602.16229), beside which pages show our numbers; sizes and training differ.

Numbers have the names that they have in summaries of studies (`flam_jax.studies.summary`).
"""

from collections.abc import Mapping

# MultiGrid at 128x128 with four agents; the paper has as many factors.
_FOUR_AGENTS: dict[str, dict[str, float]] = {
    "flam": {"psnr_mean": 56.5, "disentanglement": 0.91, "completeness": 0.91, "informativeness": 0.93},
    "playslot": {"psnr_mean": 56.5, "disentanglement": 0.81, "completeness": 0.81, "informativeness": 0.86},
    "slotformer": {"disentanglement": 0.85, "completeness": 0.85, "informativeness": 0.90},
    "flam_recurrent": {"psnr_mean": 51.6, "disentanglement": 0.33, "completeness": 0.23, "informativeness": 0.20},
    "flam_coupled": {"psnr_mean": 56.3, "disentanglement": 0.79, "completeness": 1.00, "informativeness": 0.58},
}
# By the start of a data set's label: the size of the paper's frames, and the numbers by the name of the model.
_OF_RUNS: dict[str, tuple[str, dict[str, dict[str, float]]]] = {
    "multigrid 4 agents ": ("128x128", _FOUR_AGENTS),
    "bigfish ": ("224x224", {"flam": {"fvd": 63.6}, "adaworld": {"fvd": 63.3}}),
}
# By column and key of a row.
_OF_ROWS: dict[str, dict[str, dict[str, float]]] = {
    "4agents": {
        "flam": _FOUR_AGENTS["flam"],
        "playslot": _FOUR_AGENTS["playslot"],
        "slotformer": _FOUR_AGENTS["slotformer"],
        "without_temporal_attention": _FOUR_AGENTS["flam_recurrent"],
        "globally_coupled": _FOUR_AGENTS["flam_coupled"],
        "k_4": _FOUR_AGENTS["flam"],
        "playslot_k_4": _FOUR_AGENTS["playslot"],
        "slotformer_k_4": _FOUR_AGENTS["slotformer"],
        "without_temporal_attention_k_4": _FOUR_AGENTS["flam_recurrent"],
        "globally_coupled_k_4": _FOUR_AGENTS["flam_coupled"],
        "k_2": {"psnr_mean": 53.4},
        "k_8": {"psnr_mean": 56.5},
        "k_16": {"psnr_mean": 56.5},
        "flam_beta_1e_05": {"psnr_mean": 56.5},
        "flam_beta_0.0001": {"psnr_mean": 56.5},
        "flam_beta_0.001": {"psnr_mean": 56.3},
        "flam_beta_0.01": {"psnr_mean": 24.9},
    },
}


def reported_for_run(dataset: str, model: str) -> tuple[str, Mapping[str, float]]:
    """The paper's numbers for a run.

    Args:
      dataset: label of its data set.
      model: name of its model.

    Returns:
      Size of the paper's frames, for example `128x128`, and the numbers by name; empty where the paper has none.
    """
    size, models = next((entry for start, entry in _OF_RUNS.items() if dataset.startswith(start)), ("", {}))
    return size, models.get(model, {})


def reported_for_row(column: str, row: str) -> Mapping[str, float]:
    """The paper's numbers for a row of a study by its key; empty where it has none."""
    return _OF_ROWS.get(column, {}).get(row, {})


__all__ = ["reported_for_row", "reported_for_run"]
