#!/usr/bin/python3
"""Writes reference.json, what PatchCore (Roth et al., 2022) gives for a few made-up images: a reference of its own in numpy,
in float64, that shares no code with ours. PyTorch runs the teacher alone. Needs Debian's python3-torch and python3-scipy.

    python3 rdpp/patchcore/testdata/reference.py rdpp/builtin/resnet18-imagenet.safetensors >rdpp/patchcore/testdata/reference.json
"""
import json, struct, sys
import numpy as np, torch, torch.nn.functional as F
from scipy.ndimage import gaussian_filter

S, TRAIN, TEST = 64, 7, 3
SHARE, K, STARTS, NEIGHBOURS, SIGMA = 0.1, 32, 10, 9, 2.5
MEAN, STD = np.array([.485, .456, .406]), np.array([.229, .224, .225])


def image(i):
    """3 x S x S in 0..1: rings and stripes, and from number 100 on a square that was not there."""
    y, x, c = np.meshgrid(np.arange(S), np.arange(S), np.arange(3), indexing='ij')
    v = (x * x + y * y) // (20 + 3 * c) * 9 + (x * (i % 5 + 2) + y * (c + 1)) * 3 + i * 5
    if i >= 100:
        at = 10 + 7 * (i - 100)
        v = np.where((x >= at) & (x < at + 12) & (y >= 20) & (y < 32), v * 7 + x * y, v)
    return (v % 256).transpose(2, 0, 1) / 255


def teacher(path):
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        blob = file.read()
    header.pop('__metadata__', None)
    types = {'F32': '<f4', 'F16': '<f2'}
    w = {k: torch.from_numpy(np.frombuffer(blob[slice(*v['data_offsets'])], types[v['dtype']]).astype('f8').reshape(v['shape']))
         for k, v in header.items() if v['dtype'] in types}

    def norm(x, n):
        return F.batch_norm(x, w[n + '.running_mean'], w[n + '.running_var'], w[n + '.weight'], w[n + '.bias'])

    def block(x, n, stride):
        y = F.relu(norm(F.conv2d(x, w[n + '.conv1.weight'], stride=stride, padding=1), n + '.bn1'))
        y = norm(F.conv2d(y, w[n + '.conv2.weight'], padding=1), n + '.bn2')
        if n + '.downsample.0.weight' in w:
            x = norm(F.conv2d(x, w[n + '.downsample.0.weight'], stride=stride), n + '.downsample.1')
        return F.relu(x + y)

    def features(x):
        x = torch.from_numpy((x - MEAN[:, None, None]) / STD[:, None, None])[None]
        x = F.max_pool2d(F.relu(norm(F.conv2d(x, w['conv1.weight'], stride=2, padding=3), 'bn1')), 3, 2, 1)
        found = []
        for name, stride in (('layer1', 1), ('layer2', 2), ('layer3', 2)):
            x = block(block(x, name + '.0', stride), name + '.1', 1)
            found.append(x[0].numpy())
        return found[1:]

    return features


def pooled(values, n):
    """Adaptive average pooling of the last axis."""
    size = values.shape[-1]
    return np.stack([values[..., i * size // n:-(-(i + 1) * size // n)].mean(-1) for i in range(n)], -1)


def around(f, dimensions):
    """C x H x W -> H x W x D"""
    C, H, W = f.shape
    wide = np.pad(f, ((0, 0), (1, 1), (1, 1)))
    values = np.stack([wide[:, i:i + H, j:j + W] for i in range(3) for j in range(3)], -1).transpose(1, 2, 0, 3)  # H x W x C x 9
    if dimensions == 0:
        return values.mean(-1)
    return pooled(pooled(values.reshape(H, W, 9 * C), dimensions), dimensions // 2)


def stretched(x, n):
    """H x W x D -> n x n x D, bilinear, by pixels' areas."""
    for axis in (0, 1):
        size = x.shape[axis]
        at = np.maximum((np.arange(n) + .5) * size / n - .5, 0)
        first = np.minimum(at.astype(int), size - 1)
        second = np.minimum(first + 1, size - 1)
        shape = [1] * x.ndim
        shape[axis] = n
        share = (at - first).reshape(shape)
        x = np.take(x, first, axis) * (1 - share) + np.take(x, second, axis) * share
    return x


def patches(f, dimensions):
    fine, coarse = (around(x, dimensions) for x in f)
    return np.concatenate([fine, stretched(coarse, fine.shape[0])], -1)


def greedy(points, starts, n):
    distance = np.mean([np.linalg.norm(points - points[i], axis=1) for i in starts], 0)
    chosen = []
    for _ in range(n):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        distance[chosen] = -1
    return chosen


def judge(p, bank):
    """Map, the farthest patch's distance, and its weight by Eq. 7."""
    flat = p.reshape(-1, p.shape[-1])
    distance = np.linalg.norm(flat[:, None] - bank[None], axis=2)
    nearest = distance.min(1)
    worst = nearest.argmax()
    row = distance[worst].argmin()
    near = np.argsort(np.linalg.norm(bank - bank[row], axis=1), kind='stable')[:NEIGHBOURS]
    e = np.exp(distance[worst][near] - distance[worst][near].max())
    weight = 1 - e[list(near).index(row)] / e.sum()
    small = nearest.reshape(p.shape[0], p.shape[1], 1)
    return gaussian_filter(stretched(small, S)[..., 0], SIGMA), nearest.max(), weight


def main():
    see = teacher(sys.argv[1])
    seen = [see(image(i)) for i in range(TRAIN)], [see(image(100 + i)) for i in range(TEST)]
    out = {'size': S, 'train': TRAIN, 'test': TEST, 'sigma': SIGMA, 'neighbours': NEIGHBOURS, 'projected': K, 'cases': []}
    for dimensions in (0, 100):
        good, tests = ([patches(f, dimensions) for f in part] for part in seen)
        D = good[0].shape[-1]
        rows = np.concatenate([p.reshape(-1, D) for p in good]).astype('f4').astype('f2').astype('f8')  # as they are remembered
        random = np.random.RandomState(dimensions)
        signs = random.randint(-1, 2, (D, K))
        starts = sorted(random.choice(len(rows), STARTS, replace=False).tolist())
        chosen = greedy(rows @ signs, starts, int(SHARE * len(rows)))
        case = {'dimensions': dimensions, 'signs': ''.join('-0+'[s + 1] for s in signs.ravel()), 'starts': starts, 'chosen': chosen,
                'patch': [float('%.10g' % v) for v in tests[0][2, 3, :8]], 'maps': [], 'farthest': [], 'weights': [], 'maxima': []}
        for p in tests:
            found, farthest, weight = judge(p, rows[chosen])
            case['maps'].append([float('%.10g' % v) for v in found[::5, ::5].ravel()])
            case['maxima'].append(found.max())
            case['farthest'].append(farthest)
            case['weights'].append(weight)
        out['cases'].append(case)
    json.dump(out, sys.stdout, separators=(',', ':'))
    print()


main()
