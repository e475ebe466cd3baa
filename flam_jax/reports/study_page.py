"""`results.html`: the page of a study, from the contents of its `results.json`."""

from collections.abc import Mapping
from typing import Any

from flam_jax.reports import study_tables
from flam_jax.reports.page import render


def study_page(result: Mapping[str, Any]) -> str:
    """The page of a study, also of one whose runs are not all finished.

    Args:
      result: contents of `results.json` (`flam_jax.studies.summary.study_result`).

    Returns:
      HTML that needs no other file.
    """
    columns = []
    for column, rows in result["columns"].items():
        devices = ", ".join(sorted({device for cell in rows.values() for device in cell["devices"]}))
        columns.append(
            {
                "name": column,
                "facts": f"{devices}. {study_tables.bounds(result, column)}",
                "means": study_tables.means(result, column),
                "differences": study_tables.differences(result, column),
                "at_equal_kl": study_tables.at_equal_kl(result, column),
                "first": next(iter(rows.values()))["name"],
                "charts": list(study_tables.column_charts(result, column).values()),
                "settings": study_tables.settings(result, column),
            }
        )
    return render("study.html", result=result, agents=study_tables.by_agents(result), columns=columns)


__all__ = ["study_page"]
