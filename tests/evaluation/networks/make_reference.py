"""Makes `reference.json`: what the PyTorch networks say to the weights and inputs of `random_weights.py`.

Run from the root of the repository, in an environment of its own; the tests need none of this:

    pip install "torch>=2.4" scipy tqdm && pip install --no-deps lpips
    python -m tests.evaluation.networks.make_reference

LPIPS is that of its authors' package. The stacks of AlexNet and VGG16, which it would take from torchvision, are built
here, and so is I3D, after its paper, with the parameter names of its port.
"""

import json
import sys
import types
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from tests.evaluation.networks import random_weights


def stack(backbone: str) -> nn.Sequential:
    """The `features` of torchvision's AlexNet or VGG16, with random weights."""
    if backbone == "alex":
        first = [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        second = [nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
        third = [nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()]
        parts = [*first, *second, *third, nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)]
    else:
        parts, inputs = [], 3
        for width, repeats in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(repeats):
                parts += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
                inputs = width
            parts.append(nn.MaxPool2d(2, 2))
    features = nn.Sequential(*parts)
    state = random_weights.backbone_state(backbone)
    features.load_state_dict(tensors({k.removeprefix("features."): v for k, v in state.items() if "features" in k}))
    return features


def tensors(state: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}


def give_lpips_its_backbones() -> None:
    """Puts the stacks above in the place of torchvision, of which the package needs nothing else."""
    models = types.ModuleType("torchvision.models")
    for name, backbone in (("alexnet", "alex"), ("vgg16", "vgg")):
        setattr(models, name, lambda pretrained, backbone=backbone: types.SimpleNamespace(features=stack(backbone)))
    package = types.ModuleType("torchvision")
    package.models = models  # type: ignore[attr-defined]
    sys.modules |= {"torchvision": package, "torchvision.models": models}


def lpips_reference(backbone: str) -> list[list[list[float]]]:
    """Per input, per pair of frames: the five parts of LPIPS."""
    import lpips

    metric = lpips.LPIPS(pretrained=False, net=backbone, pnet_rand=True, verbose=False)
    left = metric.load_state_dict(tensors(random_weights.heads_state(backbone)), strict=False)
    assert not left.unexpected_keys
    found = []
    for pair in random_weights.frame_pairs(backbone):
        first, second = (torch.from_numpy(frames).permute(0, 3, 1, 2) for frames in pair)
        with torch.no_grad():
            total, parts = metric(first, second, retPerLayer=True, normalize=True)
        parts = torch.stack([part.reshape(-1) for part in parts], dim=-1)
        assert torch.allclose(parts.sum(-1), total.reshape(-1))
        found.append(parts.tolist())
    return found


def fill(x: torch.Tensor, window: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """Zeros around a video so that a window's results are as many as the size over the stride, rounded up."""
    pads: list[int] = []
    for size, width, step in zip(x.shape[2:], window, stride, strict=True):
        lacking = max((-(-size // step) - 1) * step + width - size, 0)
        pads = [lacking // 2, lacking - lacking // 2, *pads]  # PyTorch counts axes from the last
    return F.pad(x, pads)


class Unit(nn.Module):
    """Convolution, batch normalization and rectification."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, outputs, kernel, stride=stride, bias=False)
        self.bn = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv3d(fill(x, self.conv3d.kernel_size, self.conv3d.stride))))


def pool(x: torch.Tensor, window: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    return F.max_pool3d(fill(x, window, stride), window, stride)


class Block(nn.Module):
    """Four branches beside each other."""

    def __init__(self, inputs: int, b0: int, b1a: int, b1b: int, b2a: int, b2b: int, b3b: int):
        super().__init__()
        self.b0 = Unit(inputs, b0, 1)
        self.b1a, self.b1b = Unit(inputs, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(inputs, b2a, 1), Unit(b2a, b2b, 3)
        self.b3b = Unit(inputs, b3b, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], dim=1)


class I3d(nn.Module):
    """From videos [b 3 t 224 224] in [-1, 1] to logits [b 400], averaged over time."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1, self.Conv3d_2c_3x3 = Unit(64, 64, 1), Unit(64, 192, 3)
        for name, channels in random_weights.I3D_BLOCKS.items():
            self.add_module(name, Block(*channels))
        self.logits: Any = nn.Module()
        self.logits.conv3d = nn.Conv3d(1024, 400, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pool(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        x = self.get_submodule("Mixed_3c")(self.get_submodule("Mixed_3b")(x))
        x = pool(x, (3, 3, 3), (2, 2, 2))
        for letter in "bcdef":
            x = self.get_submodule(f"Mixed_4{letter}")(x)
        x = pool(x, (2, 2, 2), (2, 2, 2))
        x = self.get_submodule("Mixed_5c")(self.get_submodule("Mixed_5b")(x))
        return self.logits.conv3d(F.avg_pool3d(x, (2, 7, 7), stride=1)).mean(dim=(2, 3, 4))


def i3d_reference() -> list[list[float]]:
    """Per video: the logits."""
    network = I3d().eval()
    state = tensors(random_weights.i3d_state())
    left = network.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in left.missing_keys)
    found = []
    for video in random_weights.videos():
        frames = torch.from_numpy(video[0]).permute(0, 3, 1, 2)
        frames = F.interpolate(frames, size=(224, 224), mode="bilinear", align_corners=False)
        with torch.no_grad():
            found += network(2 * frames.permute(1, 0, 2, 3)[None] - 1).tolist()
    return found


def rounded(values: Any) -> Any:
    """Seven digits, as many as float32 has."""
    return [rounded(value) for value in values] if isinstance(values, list) else float(f"{values:.7g}")


def main() -> None:
    torch.set_num_threads(1)
    give_lpips_its_backbones()
    networks = {"alex": lpips_reference("alex"), "vgg": lpips_reference("vgg"), "i3d": i3d_reference()}
    found = {name: rounded(values) for name, values in networks.items()}
    random_weights.REFERENCE.write_text(json.dumps(found) + "\n", encoding="utf-8")
    print(random_weights.REFERENCE)


if __name__ == "__main__":
    main()
