"""Files of weights: what is written is read, and everything that is not is refused in one line; the converter."""

import io
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flam_jax.evaluation import convert_weights
from flam_jax.evaluation.networks import NETWORKS, published, weights
from flam_jax.evaluation.networks.weights import WeightsError
from tests import documents
from tests.evaluation.networks import random_weights

NAME = "lpips_alex"


def zeros(network: str = NAME) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name, shape in NETWORKS[network].items()}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "below" / f"{NAME}.npz"
    weights.write(path, NAME, zeros() | {"heads.2": np.arange(384, dtype=np.float32)})
    return path


def refusal(path: Path, network: str = NAME) -> str:
    with pytest.raises(WeightsError) as error:
        weights.read(path, network)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text


def test_what_is_written_is_read(file: Path) -> None:
    found = weights.read(file, NAME)
    assert {name: value.shape for name, value in found.items()} == NETWORKS[NAME]
    assert found["heads.2"][7] == 7
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # no part is left


def test_every_network_has_its_published_number_of_parameters() -> None:
    """The convolutions of AlexNet and VGG16 with the heads; I3D without its batch normalizations."""
    sizes = {network: sum(np.prod(shape) for shape in shapes.values()) for network, shapes in NETWORKS.items()}
    assert sizes["lpips_alex"] == 2_469_696 + 1_152
    assert sizes["lpips_vgg"] == 14_714_688 + 1_472
    assert 12e6 < sizes["i3d"] < 13e6


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file; expected the weights of lpips_alex" in refusal(tmp_path / "lpips_alex.npz")


def test_arrays_larger_than_any_network_are_refused_before_they_are_inflated(tmp_path: Path) -> None:
    """A header that declares a terabyte, with next to nothing behind it."""
    path = tmp_path / f"{NAME}.npz"
    for shape, declared in (((2**28, 2**10), "1.1e+12"), ((2**62, 2**62), "8.51e+37")):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("heads.0.npy", header.getvalue() + b"\0" * 2**20)
        assert f"its arrays take {declared} bytes" in refusal(path)


def test_damaged_files(file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    path = tmp_path / "lpips_alex.npz"
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    pickled = pickle.dumps({"heads.0": [1.0]})
    for content in (b"", whole[:100], whole[: len(whole) // 2], whole[:-10], bytes(flipped), pickled, b"text"):
        path.write_bytes(content)
        assert "damaged, or no .npz file; expected the weights of lpips_alex" in refusal(path)
    with path.open("wb") as stream:
        np.save(stream, np.zeros(3))
    assert "damaged, or no .npz file" in refusal(path)


def test_pickled_arrays_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "lpips_alex.npz"
    np.savez(path, allow_pickle=True, format=1, network=NAME, **(zeros() | {"heads.0": np.array([{}], object)}))  # type: ignore[arg-type]
    assert "damaged, or no .npz file" in refusal(path)


def test_other_contents(file: Path, tmp_path: Path) -> None:
    assert "holds the weights of lpips_alex, expected those of i3d" in refusal(file, "i3d")
    path = tmp_path / "lpips_alex.npz"
    about: dict[str, Any] = {"format": 1, "network": NAME}
    short = {name: value for name, value in zeros().items() if not name.startswith("heads")}
    for content, expected in (
        (zeros(), "format unknown, expected format 1"),
        (zeros() | about | {"format": 2}, "format 2, expected format 1"),
        (short | about, "missing parameters of lpips_alex: heads.0, heads.1, heads.2, heads.3 and 1 more"),
        (zeros() | about | {"heads.5": np.zeros(1)}, "unknown parameters of lpips_alex: heads.5"),
        (zeros() | about | {"heads.0": np.zeros(3, np.float32)}, "heads.0 is float32[3], expected float32[64]"),
        (zeros() | about | {"heads.0": np.zeros(64)}, "heads.0 is float64[64], expected float32[64]"),
        (zeros() | about | {"heads.0": np.full(64, np.nan, np.float32)}, "heads.0 holds values that are not finite"),
    ):
        np.savez(path, allow_pickle=False, **content)
        assert expected in refusal(path)


def test_what_cannot_be_written(file: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing parameters of i3d"):
        weights.write(tmp_path / "i3d.npz", "i3d", zeros())
    with pytest.raises(WeightsError, match="cannot be written"):
        weights.write(file / "i3d.npz", NAME, zeros())
    assert not list(tmp_path.iterdir())


def test_batch_normalization_is_folded() -> None:
    state = random_weights.i3d_state()
    found = published.from_backbone("i3d", state)
    name = "Mixed_5c.b2b"
    weight, gain, offset, mean, variance = (
        state[f"{name}.{part}"].astype(np.float64)
        for part in ("conv3d.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
    )
    patch = np.random.default_rng(0).standard_normal((48, 3, 3, 3))
    by_hand = (np.einsum("oithw,ithw->o", weight, patch) - mean) / np.sqrt(variance + 1e-3) * gain + offset
    folded = np.einsum("thwio,ithw->o", found[f"{name}.kernel"], patch) + found[f"{name}.bias"]
    np.testing.assert_allclose(folded, by_hand, atol=1e-5)


@pytest.fixture
def states(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, np.ndarray]]:
    """State dicts by the name of the file that the converter is told to read."""
    found = {"alexnet.pth": random_weights.backbone_state("alex"), "alex.pth": random_weights.heads_state("alex")}
    monkeypatch.setattr(convert_weights, "load_state_dict", lambda path: found[path])
    return found


def convert(target: Path, capsys: pytest.CaptureFixture[str], expect: int, **changes: str) -> str:
    """What the command says, one line."""
    flags = {"network": NAME, "backbone": "alexnet.pth", "heads": "alex.pth", "out": str(target)} | changes
    assert convert_weights.main([f"--{name}={value}" for name, value in flags.items() if value]) == expect
    captured = capsys.readouterr()
    text = captured.err if expect else captured.out
    assert text.count("\n") == 1
    return text


def test_the_command(states: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "weights" / "lpips_alex.npz"
    assert convert(out, capsys, 0) == f"{out}: lpips_alex, 2,470,848 parameters\n"
    found = weights.read(out, NAME)
    kernel = states["alexnet.pth"]["features.3.weight"]
    assert found["features.3.kernel"][1, 2, 3, 4] == kernel[4, 3, 1, 2]
    assert found["heads.1"][5] == states["alex.pth"]["lin1.model.1.weight"][0, 5, 0, 0]


def test_files_that_cannot_be_converted(
    states: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "lpips_alex.npz"
    states["part.pth"] = {k: v for k, v in states["alexnet.pth"].items() if "bias" not in k}
    states["negative.pth"] = {k: v - 0.5 for k, v in states["alex.pth"].items()}
    states["nan.pth"] = states["alex.pth"] | {"lin0.model.1.weight": np.full((1, 64, 1, 1), np.nan, np.float32)}
    states["vgg.pth"] = random_weights.heads_state("vgg")
    for changes, expected in (
        (
            {"backbone": "part.pth"},
            "--backbone=part.pth: missing keys: features.0.bias, features.3.bias, features.6.bias, features.8.bias and",
        ),
        ({"backbone": "alex.pth"}, "--backbone=alex.pth: missing keys: features.0.weight"),
        ({"heads": "alexnet.pth"}, "--heads=alexnet.pth: missing keys: lin0.model.1.weight"),
        (
            {"heads": "vgg.pth"},
            "--heads=vgg.pth: lin1.model.1.weight has shape [1, 128, 1, 1], expected [1, 192, 1, 1]",
        ),
        ({"heads": "negative.pth"}, "--heads=negative.pth: lin0.model.1.weight is negative"),
        ({"heads": "nan.pth"}, "heads.0 holds values that are not finite"),
        ({"network": "i3d", "heads": ""}, "--backbone=alexnet.pth: missing keys: Conv3d_1a_7x7.conv3d.weight"),
    ):
        assert expected in convert(out, capsys, 1, **changes)
        assert not out.exists()


def test_without_pytorch_the_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, backbone = tmp_path / "lpips_alex.npz", tmp_path / "a.pth"
    assert f"--backbone={backbone}: no such file" in convert(out, capsys, 1, backbone=str(backbone))
    backbone.touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    line = convert(out, capsys, 1, backbone=str(backbone))
    assert 'install the extra "weights": pip install -e ".[weights]"' in line


def test_real_files_of_pytorch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where PyTorch is installed: what it saves is converted, and code in a file is not run."""
    torch = pytest.importorskip("torch")
    paths = {"backbone": tmp_path / "alexnet.pth", "heads": tmp_path / "alex.pth"}
    counter = {"bn.num_batches_tracked": np.array(3)}
    for name, state in (
        ("backbone", random_weights.backbone_state("alex") | counter),
        ("heads", random_weights.heads_state("alex")),
    ):
        torch.save({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()}, paths[name])
    out = tmp_path / "lpips_alex.npz"
    convert(out, capsys, 0, **{name: str(path) for name, path in paths.items()})
    expected = random_weights.heads_state("alex")["lin3.model.1.weight"].reshape(-1)
    np.testing.assert_array_equal(weights.read(out, NAME)["heads.3"], expected)

    class Evil:
        def __reduce__(self) -> Any:
            return Path(tmp_path / "ran").touch, ()

    for content in (Evil(), [1, 2], {"a": 1}):
        torch.save(content, paths["heads"])
        line = convert(out, capsys, 1, **{name: str(path) for name, path in paths.items()})
        assert "as weights alone" in line or "expected a state dict" in line
    assert not (tmp_path / "ran").exists()
    paths["heads"].write_bytes(paths["backbone"].read_bytes()[:5000])
    assert "cannot read it" in convert(out, capsys, 1, **{name: str(path) for name, path in paths.items()})


def test_the_commands_of_the_guide_are_understood() -> None:
    found = set()
    for module, arguments in documents.commands(documents.read("docs/guide/evaluation.md")):
        if module == "flam_jax.evaluation.convert_weights":
            options = convert_weights.parse(arguments)
            assert options.out == f"weights/{options.network}.npz"
            found.add(options.network)
    assert found == {"lpips_alex", "i3d"}
