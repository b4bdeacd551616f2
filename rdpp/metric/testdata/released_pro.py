"""Writes released_pro.json: what the released code's compute_pro gives for small float32 maps.

    python3 released_pro.py > released_pro.json       # the cases of the test
    python3 released_pro.py 3000 > many.json          # so many random ones

NumPy 1.24 to 1.26, scikit-image and scikit-learn. NumPy 2 computes other thresholds and is refused.
Among the cases are such that have 201 thresholds, and where the last one counts.
"""
import json
import sys
import warnings
from statistics import mean

import numpy as np
from skimage import measure
from sklearn.metrics import auc

assert np.__version__.startswith("1."), np.__version__
warnings.filterwarnings("ignore")


def released(mask, scores, thresholds=None):
    """compute_pro for one image, and the number of thresholds; None where it fails."""
    low, high = scores.min(), scores.max()
    try:
        if thresholds is None:
            thresholds = np.arange(low, high, (high - low) / 200)
        regions = [r.coords for r in measure.regionprops(measure.label(mask))]
        pros, rates = [], []
        for threshold in thresholds:
            above = scores > threshold
            pros.append(mean(above[c[:, 0], c[:, 1]].sum() / len(c) for c in regions))
            rates.append(np.logical_and(1 - mask, above).sum() / (1 - mask).sum())
        pros, rates = np.array(pros), np.array(rates)
        below = rates < 0.3
        return float(auc(rates[below] / rates[below].max(), pros[below])), len(thresholds)
    except (ValueError, ZeroDivisionError):
        return None, 0


def random_case(rng):
    height, width = rng.integers(6, 20, 2)
    mask = np.zeros((height, width), int)
    for _ in range(rng.integers(1, 4)):
        y, x = rng.integers(0, height - 2), rng.integers(0, width - 2)
        mask[y : y + rng.integers(1, 5), x : x + rng.integers(1, 5)] = 1
    scores = rng.random((height, width)) ** rng.integers(1, 4) + mask * rng.random((height, width)) * rng.choice([0, 0.2, 0.8])
    kind = rng.integers(0, 6)
    if kind == 1:
        scores = np.round(scores, 2) + np.round(rng.random(), 2)
    elif kind == 2:
        scores = np.round(scores * 4) / 4
    elif kind == 3:
        scores = scores * 10.0 ** rng.integers(-30, 30)
    elif kind == 4:
        scores = scores - rng.random() + 10.0 ** rng.integers(-3, 4)
    elif kind == 5 and rng.random() < 0.1:
        scores = scores * 0 + 1
    return mask, scores.astype(np.float32)


def evenly(scores):
    """200 thresholds, of a range that is not rounded."""
    low, high = np.float64(scores.min()), np.float64(scores.max())
    return (low + np.arange(200) * ((high - low) / 200)).astype(np.float32)


def case(mask, scores):
    value, count = released(mask, scores)
    text = [[str(v) for v in row] for row in scores]
    return {"mask": mask.tolist(), "scores": [[float(v) for v in row] for row in text], "thresholds": count, "pro": value}


def main():
    rng = np.random.default_rng(1)
    if len(sys.argv) > 1:
        json.dump([case(*random_case(rng)) for _ in range(int(sys.argv[1]))], sys.stdout)
        return
    wanted = {"201 that count": 6, "201": 2, "200": 8, "none": 2}
    cases = []
    while any(wanted.values()):
        mask, scores = random_case(rng)
        value, count = released(mask, scores)
        kind = str(count) if value is not None else "none"
        if value is not None and abs(value - (released(mask, scores, evenly(scores))[0] or 0)) > 1e-6:
            kind += " that count"
        if wanted.get(kind, 0) > 0:
            wanted[kind] -= 1
            cases.append(case(mask, scores))
    print("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")


main()
