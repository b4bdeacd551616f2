#!/usr/bin/python3
"""Writes reference.json, what CFA (Lee et al., 2022) gives for made-up features and a made-up bank: descriptors, both terms of
the loss (Eq. 1 and 2), gradients and ten updates, in float64, and maps and scores (Eq. 4 and 5) of a made-up image. It is written from
the paper with PyTorch's modules and autograd, compares everything with everything, and shares no code with ours. Needs Debian's
python3-torch.

    python3 rdpp/cfa/testdata/reference.py rdpp/builtin/resnet18-imagenet.safetensors >rdpp/cfa/testdata/reference.json
"""
import json, math, struct, sys
import torch, torch.nn as nn, torch.nn.functional as F

torch.set_default_dtype(torch.float64)
RATE, DECAY = 1e-3, 5e-4
CHANNELS = 64, 128, 256
CASES = [
    dict(dimensions=6, rows=40, near=3, far=3, radius=0.58, fixed=False, margin=0.1, nu=1e-3, images=2, sides=[(6, 5), (3, 3), (2, 2)]),
    dict(dimensions=5, rows=7, near=2, far=4, radius=0.8, fixed=True, margin=0.0, nu=1.0, images=1, sides=[(4, 4), (2, 2), (1, 1)]),
    dict(dimensions=450, rows=12, near=3, far=3, radius=1e-5, fixed=False, margin=0.1, nu=1e-3, images=3, sides=[(2, 3), (1, 2), (1, 1)]),
]


def number(name, i):
    """Made up, in -1..1, the same here and in the test: from a hash of name and number."""
    h = 2166136261
    for c in '%s/%d' % (name, i):
        h = (h ^ ord(c)) * 16777619 % 2**32
    h = (h ^ h >> 16) * 0x45d9f3b % 2**32
    return ((h ^ h >> 16) % 20001 - 10000) / 10000


def numbers(name, shape):
    return torch.tensor([number(name, i) for i in range(math.prod(shape))]).reshape(shape)


def summary(t):
    """Sum, sum weighted by place, and sum of squares: three numbers that no wrong element leaves alone."""
    t = t.detach().flatten()
    place = 1 + torch.arange(len(t)) % 7
    return [t.sum().item(), (t * place).sum().item(), (t * t).sum().item()]


class Descriptor(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.conv = nn.Conv2d(sum(CHANNELS) + 2, case['dimensions'], 1)
        with torch.no_grad():
            self.conv.weight.copy_(numbers('conv.weight', self.conv.weight.shape) * 0.1)
            self.conv.bias.copy_(numbers('conv.bias', self.conv.bias.shape) * 0.1)
        self.radius = nn.Parameter(torch.tensor([case['radius']]), requires_grad=not case['fixed'])

    def forward(self, features):
        H, W = features[0].shape[2:]
        x = [F.interpolate(F.avg_pool2d(f, 3, 1, 1), size=(H, W), mode='bilinear', align_corners=False) for f in features]
        row, column = torch.meshgrid(torch.linspace(-1, 1, H), torch.linspace(-1, 1, W), indexing='ij')
        coordinates = torch.stack([row, column]).expand(len(x[0]), 2, H, W)
        return self.conv(torch.cat(x + [coordinates], 1)).permute(0, 2, 3, 1)  # B x H x W x D


def bank(case):
    return numbers('centres', (case['rows'], case['dimensions'])) * 0.5


def squares(phi, centres):
    """All squared distances, ascending."""
    return ((phi.unsqueeze(-2) - centres) ** 2).sum(-1).sort(-1).values


def losses(phi, centres, radius, case):
    d = squares(phi, centres)
    K, J = case['near'], case['far']
    attraction = torch.clamp(d[..., :K] - radius**2, min=0).mean() / case['nu']
    repulsion = torch.clamp(radius**2 - d[..., K:K + J] - case['margin'], min=0).mean() / case['nu']
    return attraction, repulsion


def features(case, step):
    return [numbers('features%d.%d' % (step, k), (case['images'], CHANNELS[k], *case['sides'][k])) for k in range(3)]


def run(case):
    net, centres = Descriptor(case), bank(case)
    learned = {n: p for n, p in net.named_parameters() if p.requires_grad}
    phi = net(features(case, 0))
    phi.retain_grad()
    attraction, repulsion = losses(phi, centres, net.radius, case)
    (attraction + repulsion).backward()
    out = dict(case, phi=summary(phi), attraction=attraction.item(), repulsion=repulsion.item(),
               gradients={n: summary(p.grad) for n, p in learned.items()})
    adam = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, amsgrad=True)
    trajectory = []
    for step in range(10):
        adam.zero_grad()
        loss = sum(losses(net(features(case, step % 3)), centres, net.radius, case))
        loss.backward()
        adam.step()
        trajectory.append(loss.item())
    out['losses'] = trajectory
    out['after'] = {n: summary(p) for n, p in learned.items()}
    return out


def teacher(path, x):
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        blob = file.read()
    header.pop('__metadata__', None)
    types = {'F32': torch.float32, 'F16': torch.float16}
    w = {k: torch.frombuffer(bytearray(blob[slice(*v['data_offsets'])]), dtype=types[v['dtype']]).double().reshape(v['shape'])
         for k, v in header.items() if v['dtype'] in types}

    def conv_bn(x, conv, bn, stride, padding):
        x = F.conv2d(x, w[conv + '.weight'], stride=stride, padding=padding)
        return F.batch_norm(x, w[bn + '.running_mean'], w[bn + '.running_var'], w[bn + '.weight'], w[bn + '.bias'])

    x = F.max_pool2d(F.relu(conv_bn(x, 'conv1', 'bn1', 2, 3)), 3, 2, 1)
    found = []
    for k in (1, 2, 3):
        for i in (0, 1):
            name, stride = 'layer%d.%d' % (k, i), 2 if k > 1 and i == 0 else 1
            y = F.relu(conv_bn(x, name + '.conv1', name + '.bn1', stride, 1))
            y = conv_bn(y, name + '.conv2', name + '.bn2', 1, 1)
            if stride > 1:
                x = conv_bn(x, name + '.downsample.0', name + '.downsample.1', stride, 0)
            x = F.relu(x + y)
        found.append(x)
    return found


def blur(S, sigma):
    """The Gaussian along one side as a matrix, cut at 4 sigma, edges mirrored with the edge repeated."""
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(-reach, reach + 1)]
    matrix = torch.zeros(S, S)
    for row in range(S):
        for i, weight in enumerate(kernel):
            at = (row + i - reach) % (2 * S)
            matrix[row, min(at, 2 * S - 1 - at)] += weight / sum(kernel)
    return matrix


def judged(path, S=64, sigma=2.5):
    case = CASES[0]
    x = numbers('image', (2, 3, S, S))
    with torch.no_grad():
        phi = Descriptor(case)(teacher(path, x))
    d = squares(phi, bank(case)).sqrt()[..., :case['near']]

    def mapped(score):  # B x H x W
        wide = F.interpolate(score.unsqueeze(1), size=(S, S), mode='bilinear', align_corners=False)[:, 0]
        maps = blur(S, sigma) @ wide @ blur(S, sigma).T
        return dict(map=summary(maps), scores=maps.flatten(1).max(1).values.tolist())

    return dict(size=S, sigma=sigma, phi=summary(phi), softmin=mapped(F.softmin(d, dim=-1)[..., 0] * d[..., 0]), nearest=mapped(d[..., 0]))


print(json.dumps(dict(rate=RATE, decay=DECAY, judged=judged(sys.argv[1]), cases=[run(c) for c in CASES])))
