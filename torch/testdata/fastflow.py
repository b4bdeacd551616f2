#!/usr/bin/python3
"""Writes fastflow.json, what FastFlow (Yu et al., 2021) gives for made-up weights and images: a reference of its own in
float64, that shares no code with ours. It is FrEIA's way: permutations are products with matrices, and gradients are
autograd's. Of the coarsest flow the determinant is also computed from the whole Jacobian. Needs Debian's python3-torch and
python3-scipy.

    /usr/bin/python3 torch/testdata/fastflow.py

Weights and inputs are made by uniform and fill, as in golden_test.go, so that none need be stored.
"""
import json, math, pathlib
import numpy as np, torch, torch.nn.functional as F
from scipy.ndimage import gaussian_filter

torch.set_default_dtype(torch.float64)
B, S, SIGMA, UPDATES, RATE, DECAY = 2, 32, 1.5, 10, 1e-3, 1e-5


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


def fill(key, *shape):
    u = uniform(key, math.prod(shape))
    if len(shape) == 4:
        u = (2 * u - 1) * math.sqrt(6 / math.prod(shape[1:]))
    elif key.endswith('.scale'):
        u = 8 + 4 * u
    elif key.endswith(('weight', 'running_var')):
        u = u + 0.5
    else:
        u = 0.2 * (2 * u - 1)
    return torch.from_numpy(u.astype('f4').astype('f8')).reshape(shape)


def teacher(x):
    """The features of a resnet18's layer1 to layer3."""
    def norm(x, name):
        C = x.shape[1]
        mean, var, weight, bias = (fill(f'encoder.{name}.{of}', C) for of in ('running_mean', 'running_var', 'weight', 'bias'))
        return F.batch_norm(x, mean, var, weight, bias)

    def conv(x, name, C, side, stride=1):
        return F.conv2d(x, fill(f'encoder.{name}.weight', C, x.shape[1], side, side), stride=stride, padding=side // 2)

    def block(x, name, C, stride):
        y = norm(conv(F.relu(norm(conv(x, name + '.conv1', C, 3, stride), name + '.bn1')), name + '.conv2', C, 3), name + '.bn2')
        if stride > 1:
            x = norm(conv(x, name + '.downsample.0', C, 1, stride), name + '.downsample.1')
        return F.relu(x + y)

    x = F.max_pool2d(F.relu(norm(conv(x, 'conv1', 64, 7, 2), 'bn1')), 3, 2, 1)
    found = []
    for layer in (1, 2, 3):
        C = 32 << layer
        x = block(block(x, f'layer{layer}.0', C, min(layer, 2)), f'layer{layer}.1', C, 1)
        found.append(x)
    return found


class Flows:
    def __init__(self, case):
        self.case, self.params = case, {}
        for layer in (1, 2, 3):
            C, side = 32 << layer, S // (2 << layer)
            if case['affine']:
                self.learn(f'layer{layer}.norm_weight', C, side, side)
                self.learn(f'layer{layer}.norm_bias', C, side, side)
            for i in range(case['steps']):
                name, kernel = f'layer{layer}.{i}.', 1 if case['pointwise'] and i % 2 == 1 else 3
                middle = int(case['hidden'] * (C // 2))
                self.learn(name + 'scale', C)
                self.learn(name + 'offset', C)
                self.learn(name + 'conv1.weight', middle, C // 2, kernel, kernel)
                self.learn(name + 'conv1.bias', middle)
                self.learn(name + 'conv2.weight', C, middle, kernel, kernel)
                self.learn(name + 'conv2.bias', C)

    def learn(self, name, *shape):
        self.params[name] = fill('flow.' + name, *shape).requires_grad_()

    def normal(self, layer, x):
        of = self.params.get
        flat = x.reshape(len(x), -1)
        mean, var = flat.mean(1).view(-1, 1, 1, 1), flat.var(1, unbiased=False).view(-1, 1, 1, 1)
        x = (x - mean) / (var + 1e-5).sqrt()
        return x * of(f'layer{layer}.norm_weight') + of(f'layer{layer}.norm_bias') if self.case['affine'] else x

    def flow(self, layer, x):
        log_det = 0
        for i in range(self.case['steps']):
            p = {of: self.params[f'layer{layer}.{i}.{of}'] for of in
                 ('scale', 'offset', 'conv1.weight', 'conv1.bias', 'conv2.weight', 'conv2.bias')}
            C = x.shape[1]
            same, half = x.split([C - C // 2, C // 2], 1)
            a = F.conv2d(same, p['conv1.weight'], p['conv1.bias'], padding='same').clamp(min=0)
            a = 0.1 * F.conv2d(a, p['conv2.weight'], p['conv2.bias'], padding='same')
            s = self.case['clamp'] * torch.tanh(a[:, :C // 2])
            scale = 0.1 * torch.nn.Softplus(beta=0.5)(p['scale']).view(1, -1, 1, 1)
            x = torch.cat([same, half * torch.exp(s) + a[:, C // 2:]], 1) * scale + p['offset'].view(1, -1, 1, 1)
            log_det = log_det + s.sum((1, 2, 3)) + x[0, 0].numel() * scale.log().sum()
            order = np.argsort(uniform(f'flow.layer{layer}.{i}.order', C), kind='stable')
            matrix = torch.zeros(C, C)
            matrix[torch.arange(C), torch.from_numpy(order)] = 1
            x = F.conv2d(x, matrix.view(C, C, 1, 1))
        return x, log_det

    def likelihood(self, features):
        found = [self.flow(layer, self.normal(layer, f)) for layer, f in zip((1, 2, 3), features)]
        loss = sum((0.5 * (z**2).sum((1, 2, 3)) - log_det).mean() for z, log_det in found)
        return found, loss


def summary(t):
    """As torch/golden_test.go has it, with a few values."""
    t = t.detach().reshape(t.shape)
    values = t.reshape(-1)
    at = [int(i * (len(values) - 1) / 6) for i in range(7)]
    return {'shape': list(t.shape), 'mean': float(values.mean()), 'l2': float(values.norm()), 'at': at, 'values': [float(values[i]) for i in at]}


def maps(found, likelihood):
    total = 0
    for z, _ in found:
        value = 0.5 * (z.detach()**2).mean(1, keepdim=True)
        value = value if likelihood else 1 - torch.exp(-value)
        total = total + F.interpolate(value, size=[S, S], mode='bilinear', align_corners=False)[:, 0] / 3
    return [gaussian_filter(m, SIGMA, mode='reflect') for m in total.numpy()]


def main():
    x = torch.from_numpy(4 * uniform('x', B * 3 * S * S) - 2).reshape(B, 3, S, S)
    features = teacher(x)
    out = {'batch': B, 'size': S, 'sigma': SIGMA, 'rate': RATE, 'decay': DECAY, 'cases': []}
    for case in ({'steps': 2, 'hidden': 1, 'pointwise': False, 'clamp': 2, 'affine': True, 'clip': 0},
                 {'steps': 3, 'hidden': 0.5, 'pointwise': True, 'clamp': 1.5, 'affine': False, 'clip': 50}):
        flows = Flows(case)
        found, loss = flows.likelihood(features)
        loss.backward()
        case['normal'] = [summary(flows.normal(layer, f)) for layer, f in zip((1, 2, 3), features)]
        case['z'] = [summary(z) for z, _ in found]
        case['logDet'] = [log_det.tolist() for _, log_det in found]
        case['grad'] = {name: summary(p.grad) for name, p in flows.params.items()}
        coarsest = flows.normal(3, features[2][:1]).detach()
        jacobian = torch.autograd.functional.jacobian(lambda x: flows.flow(3, x)[0], coarsest)
        case['jacobian'] = float(torch.linalg.slogdet(jacobian.reshape(coarsest.numel(), -1))[1])
        case['maps'] = {}
        for name, likelihood in (('probability', False), ('likelihood', True)):
            case['maps'][name] = [{'highest': float(m.max()), 'top': float(np.sort(m.ravel())[-int(0.02 * S * S):].mean()),
                                   'values': [float(v) for v in m[::9, ::9].ravel()]} for m in maps(found, likelihood)]
        adam = torch.optim.Adam(flows.params.values(), lr=RATE, weight_decay=DECAY)
        case['losses'] = []
        for _ in range(UPDATES):
            adam.zero_grad()
            _, loss = flows.likelihood(features)
            loss.backward()
            if case['clip']:
                torch.nn.utils.clip_grad_norm_(flows.params.values(), case['clip'])
            adam.step()
            case['losses'].append(float(loss))
        case['after'] = {name: summary(p) for name, p in flows.params.items()}
        out['cases'].append(case)
    pathlib.Path(__file__).with_name('fastflow.json').write_text(json.dumps(out, separators=(',', ':')) + '\n')


main()
