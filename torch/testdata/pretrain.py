"""Writes pretrain.json: what PyTorch and torchvision answer to TestPretrainGolden. Made with PyTorch 1.13.

Weights and inputs are made by uniform and fill, as in golden_test.go, so that none need be stored.
"""
import json
import math
import pathlib

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

torch.set_default_dtype(torch.float64)


def uniform(key, n):
    """n numbers in [0, 1): FNV-1a of the key seeds SplitMix64, whose upper 24 bits are kept."""
    h = 0xCBF29CE484222325
    for byte in key.encode():
        h = (h ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def fill(network, module):
    for name, t in module.state_dict().items():
        u = uniform(f"{network}.{name}", t.numel())
        if name.endswith("num_batches_tracked"):
            u = u * 0
        elif t.dim() == 4:
            u = (2 * u - 1) * math.sqrt(6 / (t.shape[1] * t.shape[2] * t.shape[3]))
        elif name.endswith(".weight") or name.endswith("running_var"):
            u = u + 0.5
        else:
            u = 0.2 * (2 * u - 1)
        t.copy_(torch.from_numpy(u.astype(np.float32).astype(np.float64)).reshape(t.shape))


class Head(nn.Module):
    """1x1 convolutions on the features, or on their mean over positions, where they are nn.Linear."""

    def __init__(self, objective, outputs):
        super().__init__()
        self.objective = objective
        for k in range(3):
            c = 64 << k
            widths = [c, 256, outputs] if objective == "pair" else [c, outputs]
            layers = [nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:])]
            self.add_module(f"head{k + 1}", nn.ModuleList(layers))

    def forward(self, k, f):
        layers = self._modules[f"head{k + 1}"]
        y = f if self.objective == "dense" else f.mean((2, 3))
        for i, layer in enumerate(layers):
            y = F.relu(y) if i > 0 else y
            y = layer(y) if self.objective == "dense" else F.linear(y, layer.weight[:, :, 0, 0], layer.bias)
        return F.normalize(y, dim=1) if self.objective == "pair" else y


def judge(objective, y, labels):
    if objective == "pair":
        B = len(y)
        similarity = y @ y.T / 0.1 - torch.diag(torch.full((B,), math.inf))
        target = torch.arange(B) ^ 1
        return F.cross_entropy(similarity, target), (similarity.argmax(1) == target).double().mean()
    smoothing = 0.1 if objective == "class" else 0
    loss = F.cross_entropy(y, labels, ignore_index=-1, label_smoothing=smoothing)
    return loss, (y.argmax(1) == labels)[labels >= 0].double().mean()


def norms(module, wanted):
    return {n: float(t.double().norm()) for n, t in module.state_dict().items() if n in wanted}


B, S, OUTPUTS, WEIGHTS, RATES = 4, 32, 5, [0.3, 0.5, 1.0], [1e-3, 3e-3, 2e-3]
cases = []
for objective in ["class", "dense", "pair"]:
    with torch.no_grad():
        resnet = torchvision.models.resnet18()
        head = Head(objective, OUTPUTS)
        fill("teacher", resnet)
        fill("head", head)
    del resnet.layer4, resnet.fc
    groups = []
    for module in [resnet.train(), head]:
        for decay, of in [(0.05, lambda p: p.dim() > 1), (0, lambda p: p.dim() <= 1)]:
            groups.append({"params": [p for p in module.parameters() if of(p)], "weight_decay": decay})
    adam = torch.optim.AdamW(groups, lr=1, betas=(0.9, 0.999), eps=1e-8)
    x = torch.from_numpy(2 * uniform("x", B * 3 * S * S) - 1).reshape(B, 3, S, S)
    case = {"objective": objective, "losses": [], "accuracies": []}
    for rate in RATES:
        for group in adam.param_groups:
            group["lr"] = rate
        y = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
        losses, accuracies = [], []
        for k, layer in enumerate([resnet.layer1, resnet.layer2, resnet.layer3]):
            y = layer(y)
            n = S // (4 << k)
            rows = B * n * n if objective == "dense" else B
            # -1, which is to be ignored, 0, 1, ... OUTPUTS - 1
            labels = torch.from_numpy(uniform(f"labels{k}", rows) * (OUTPUTS + 1)).long() - 1
            labels = labels.reshape(B, n, n) if objective == "dense" else labels
            loss, accuracy = judge(objective, head(k, y), labels)
            losses.append(loss)
            accuracies.append(float(accuracy))
        adam.zero_grad()
        sum(w * l for w, l in zip(WEIGHTS, losses)).backward()
        adam.step()
        case["losses"].append([float(l) for l in losses])
        case["accuracies"].append(accuracies)
    case["teacher"] = norms(resnet, ["conv1.weight", "bn1.weight", "bn1.running_var", "layer2.0.downsample.0.weight",
                                     "layer3.1.bn2.bias", "layer3.1.bn2.running_mean"])
    case["head"] = norms(head, ["head1.0.weight", "head2.0.bias", "head3.0.weight"])
    cases.append(case)
pathlib.Path(__file__).with_name("pretrain.json").write_text(json.dumps(cases, indent=1) + "\n")
