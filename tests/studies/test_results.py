"""The documents of the results are what the records give."""

import re
from pathlib import Path

import pytest

from flam_jax.studies import results

ROOT = Path(__file__).parents[2]
DOCUMENTS = ROOT / "docs" / "results"


@pytest.fixture(scope="module")
def made():
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return results.documents(ROOT / "docs" / "records")


def test_the_committed_documents_are_made_from_the_records(made):
    for name, text in made.items():
        assert (DOCUMENTS / name).is_file(), f"{name} is missing: run python -m flam_jax.studies.results"
        if name.endswith(".md"):  # drawings may differ between versions of the plotting library
            assert (DOCUMENTS / name).read_text(encoding="utf-8") == text, f"{name} is of other records"
    written_by_hand = {"other_measurements.md"}
    assert {path.name for path in DOCUMENTS.iterdir()} == set(made) | written_by_hand


def test_every_link_of_a_document_leads_to_a_file():
    for document in DOCUMENTS.glob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            assert (DOCUMENTS / link).exists(), f"{document.name}: {link}"


def test_there_are_at_most_ten_claims(made):
    claims = made[results.INDEX].split("## Pages")[0]
    assert 5 < len([line for line in claims.splitlines() if line.startswith("|")]) - 2 <= 10


def test_the_command_names_a_folder_without_records(tmp_path, capsys):
    assert results.main([f"--records={tmp_path}", f"--out={tmp_path / 'out'}"]) == 2
    assert "--records: no folder of a preset in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
