#!/usr/bin/python3
"""Writes efficientnet.json: what torchvision's EfficientNet-B5 sees of made-up images with made-up weights, in float64, after
features.3, features.5 and features.6, and a digest of the names and shapes of its state dict up to there. Needs Debian's
python3-torch and python3-torchvision.

    python3 torch/testdata/efficientnet.py >torch/testdata/efficientnet.json
"""
import hashlib, json, math
import torch, torchvision


def numbers(name, n):
    """n numbers in -1..1, the same here and in the test: from a hash of the name, mixed with each number's place."""
    h = 2166136261
    for c in name.encode():
        h = (h ^ c) * 16777619 % 2**32
    h = (h + torch.arange(n) * 0x9e3779b1) % 2**32
    for _ in range(2):
        h = (h ^ h >> 16) * 0x45d9f3b % 2**32
    return ((h ^ h >> 16) % 20001 - 10000).double() / 10000


def made_up(name, shape):
    """An entry of the state dict: convolutions keep the spread of what they read, norms and biases change it a little."""
    x = numbers(name, math.prod(shape)).reshape(shape)
    if len(shape) == 4:
        return x * (3 / math.prod(shape[1:]))**0.5
    if name.endswith(('.1.weight', '.running_var')):
        return 1 + x / 2
    return x * 0.3


def summary(t):
    """Sum, sum weighted by place, and sum of squares: three numbers that no wrong element leaves alone."""
    t = t.flatten()
    place = 1 + torch.arange(len(t)) % 7
    return [t.sum().item(), (t * place).sum().item(), (t * t).sum().item()]


net = torchvision.models.efficientnet_b5(weights=None).double().eval()
state, lines = net.state_dict(), []
for name, t in state.items():
    if name.startswith(tuple('features.%d.' % i for i in range(7))):
        lines.append('%s %s\n' % (name, 'x'.join(map(str, t.shape))))
        if not name.endswith('num_batches_tracked'):
            t.copy_(made_up(name, t.shape))
cases = []
with torch.no_grad():
    for images, side in ((2, 64), (1, 48), (1, 8)):
        x, features = numbers('images%d' % side, images * 3 * side * side).reshape(images, 3, side, side) * 2, []
        for i in range(7):
            x = net.features[i](x)
            if i in (3, 5, 6):
                features.append(dict(shape=list(x.shape), summary=summary(x)))
        cases.append(dict(images=images, side=side, features=features))
print(json.dumps(dict(entries=len(lines), names=hashlib.sha256(''.join(lines).encode()).hexdigest(), cases=cases)))
