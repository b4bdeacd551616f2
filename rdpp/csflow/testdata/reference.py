#!/usr/bin/python3
"""Writes reference.json, what the cross-scale flow of CSFlow (Rudolph et al., 2022) gives for made-up features: forward, log
determinants, loss, gradients and ten updates, in float64. It is written from the paper with PyTorch's modules and autograd, and
shares no code with ours; one log determinant is that of the whole Jacobian. The teacher's features of made-up images in three
sizes are PyTorch's too. Needs Debian's python3-torch.

    python3 rdpp/csflow/testdata/reference.py rdpp/builtin/resnet18-imagenet.safetensors >rdpp/csflow/testdata/reference.json
"""
import json, math, struct, sys
import torch, torch.nn as nn, torch.nn.functional as F

torch.set_default_dtype(torch.float64)
CLAMP, RATE, EPS, DECAY, CLIP = 3.0, 2e-4, 1e-4, 1e-5, 1.0
# Channels, blocks, hidden channels, images and sides of the finest scale. Sides of multiples of 4 are the published ones.
CASES = [(4, 2, 3, 2, (8, 4)), (5, 3, 2, 1, (6, 7)), (2, 1, 2, 2, (1, 2))]


def number(name, i):
    """Made up, in -1..1, the same here and in the test: from a hash of name and number."""
    h = 2166136261
    for c in '%s/%d' % (name, i):
        h = (h ^ ord(c)) * 16777619 % 2**32
    h = (h ^ h >> 16) * 0x45d9f3b % 2**32
    return ((h ^ h >> 16) % 20001 - 10000) / 10000


def numbers(name, shape):
    return torch.tensor([number(name, i) for i in range(math.prod(shape))]).reshape(shape)


def order(name, n):
    return sorted(range(n), key=lambda i: (number(name, i), i))


class Sub(nn.Module):
    def __init__(self, inside, outside, hidden, kernel):
        super().__init__()
        pad = kernel // 2
        for k in range(3):
            setattr(self, 'gamma%d' % k, nn.Parameter(torch.zeros(1)))
            setattr(self, 'first%d' % k, nn.Conv2d(inside, hidden, kernel, padding=pad))
            setattr(self, 'second%d' % k, nn.Conv2d(hidden, outside, kernel, padding=pad))
            if k < 2:
                setattr(self, 'up%d' % k, nn.Conv2d(hidden, outside, kernel, padding=pad))
            if k > 0:
                setattr(self, 'down%d' % k, nn.Conv2d(hidden, outside, kernel, stride=2, padding=pad))

    def forward(self, x):
        seen = [F.leaky_relu(getattr(self, 'first%d' % k)(x[k]), 0.1) for k in range(3)]
        out = []
        for k in range(3):
            y = getattr(self, 'second%d' % k)(seen[k])
            if k < 2:
                wide = F.interpolate(seen[k + 1], size=seen[k].shape[2:], mode='bilinear', align_corners=False)
                y = y + getattr(self, 'up%d' % k)(wide)
            if k > 0:
                y = y + getattr(self, 'down%d' % k)(seen[k - 1])
            out.append(y * getattr(self, 'gamma%d' % k))
        return out


class Flow(nn.Module):
    def __init__(self, channels, blocks, hidden):
        super().__init__()
        self.half, self.channels, self.blocks = channels // 2, channels, blocks
        rest = channels - self.half
        for b in range(blocks):
            block = nn.Module()
            kernel = 5 if b == blocks - 1 else 3
            block.r1, block.r2 = Sub(self.half, 2 * rest, hidden, kernel), Sub(rest, 2 * self.half, hidden, kernel)
            setattr(self, 'block%d' % b, block)

    def forward(self, y):
        logs = 0

        def affine(x, raw, n):
            nonlocal logs
            out = []
            for k in range(3):
                s = 2 * CLAMP / math.pi * torch.atan(raw[k][:, :n] / CLAMP)
                logs = logs + s.sum((1, 2, 3))
                out.append(x[k] * torch.exp(s) + raw[k][:, n:])
            return out

        for b in range(self.blocks):
            block = getattr(self, 'block%d' % b)
            y = [y[k][:, order('block%d.order%d' % (b, k), self.channels)] for k in range(3)]
            one, two = [t[:, :self.half] for t in y], [t[:, self.half:] for t in y]
            one = affine(one, block.r2(two), self.half)
            two = affine(two, block.r1(one), self.channels - self.half)
            y = [torch.cat(pair, 1) for pair in zip(one, two)]
        return y, logs


def loss_of(z, logs):
    flat = torch.cat([t.flatten(1) for t in z], 1)
    return ((flat**2).sum(1) / 2 - logs).mean() / flat.shape[1]


def features(case, images, step):
    channels, (h, w) = case[0], case[4]
    out = []
    for k in range(3):
        out.append(2 * numbers('features%d.%d' % (step, k), (images, channels, h, w)))
        h, w = -(-h // 2), -(-w // 2)
    return out


def run(case):
    channels, blocks, hidden, images, _ = case
    flow = Flow(channels, blocks, hidden)
    with torch.no_grad():
        for name, p in flow.named_parameters():
            p.copy_(numbers(name, p.shape) * (1 if 'gamma' in name else 0.5))
    y = [t.requires_grad_() for t in features(case, images, 0)]
    z, logs = flow(y)
    loss = loss_of(z, logs)
    loss.backward()
    out = dict(channels=channels, blocks=blocks, hidden=hidden, images=images, height=case[4][0], width=case[4][1],
               z=[t.flatten().tolist() for t in z], log_det=logs.tolist(), loss=loss.item(),
               gradients={n: summary(p.grad) for n, p in flow.named_parameters()}, into=[summary(t.grad) for t in y])
    # The whole Jacobian of one image.
    shapes = [t[:1].shape for t in y]

    def whole(x):
        parts = x.split([math.prod(s) for s in shapes])
        return torch.cat([t.flatten() for t in flow([p.reshape(s) for p, s in zip(parts, shapes)])[0]])

    jacobian = torch.autograd.functional.jacobian(whole, torch.cat([t[:1].detach().flatten() for t in y]))
    out['whole'] = torch.linalg.slogdet(jacobian)[1].item()
    # Ten updates.
    adam = torch.optim.Adam(flow.parameters(), lr=RATE, eps=EPS, weight_decay=DECAY)
    losses = []
    for step in range(10):
        adam.zero_grad()
        loss = loss_of(*flow(features(case, images, step)))
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), CLIP)
        adam.step()
        losses.append(loss.item())
    out['losses'] = losses
    out['after'] = {n: summary(p.detach()) for n, p in flow.named_parameters()}
    return out


def summary(t):
    """Sum, sum weighted by place, and sum of squares: three numbers that no wrong element leaves alone."""
    t = t.flatten()
    place = 1 + torch.arange(len(t)) % 7
    return [t.sum().item(), (t * place).sum().item(), (t * t).sum().item()]


def pyramid(path, S=64):
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        blob = file.read()
    header.pop('__metadata__', None)
    types = {'F32': torch.float32, 'F16': torch.float16}
    w = {k: torch.frombuffer(bytearray(blob[slice(*v['data_offsets'])]), dtype=types[v['dtype']]).double().reshape(v['shape'])
         for k, v in header.items() if v['dtype'] in types}

    def norm(x, n):
        return F.batch_norm(x, w[n + '.running_mean'], w[n + '.running_var'], w[n + '.weight'], w[n + '.bias'])

    def block(x, n, stride):
        y = F.relu(norm(F.conv2d(x, w[n + '.conv1.weight'], stride=stride, padding=1), n + '.bn1'))
        y = norm(F.conv2d(y, w[n + '.conv2.weight'], padding=1), n + '.bn2')
        if n + '.downsample.0.weight' in w:
            x = norm(F.conv2d(x, w[n + '.downsample.0.weight'], stride=stride), n + '.downsample.1')
        return F.relu(x + y)

    x = numbers('image', (1, 3, S, S))
    out = []
    for k in range(3):
        y = x if k == 0 else F.interpolate(x, size=(S >> k, S >> k))  # nearest, as the published code has it
        y = F.max_pool2d(F.relu(norm(F.conv2d(y, w['conv1.weight'], stride=2, padding=3), 'bn1')), 3, 2, 1)
        for name, stride in (('layer1', 1), ('layer2', 2), ('layer3', 2)):
            y = block(block(y, name + '.0', stride), name + '.1', 1)
        out.append(summary(y))
    return dict(size=S, layer3=out)


print(json.dumps(dict(clamp=CLAMP, rate=RATE, eps=EPS, decay=DECAY, clip=CLIP, pyramid=pyramid(sys.argv[1]), cases=[run(c) for c in CASES])))
