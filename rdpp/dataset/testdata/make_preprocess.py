#!/usr/bin/env python3
"""Writes preprocess.json: what OpenCV and Pillow make of the test pictures.

Needs python3-opencv, python3-pil and python3-numpy. The pictures are not stored: byte i of a picture is the
top byte of SplitMix64 number i + 1 started from the FNV-1a hash of the picture's key, the same here and in the tests.
"""
import json
import os

import cv2
import numpy as np
from PIL import Image


def pixels(key, n):
    h = 0xCBF29CE484222325
    for b in key.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    z = z ^ z >> np.uint64(31)
    return (z >> np.uint64(56)).astype(np.uint8)


def image(w, h, size):
    key = f"image {w}x{h}"
    rgb = pixels(key, w * h * 3).reshape(h, w, 3)
    out = cv2.resize(rgb / np.float32(255), (size, size), interpolation=cv2.INTER_LINEAR)
    assert out.dtype == np.float32
    out = out.transpose(2, 0, 1).astype(np.float64)
    norm = (out - np.array([0.485, 0.456, 0.406])[:, None, None]) / np.array([0.229, 0.224, 0.225])[:, None, None]
    at = [i * (out.size - 1) // 31 for i in range(32)]
    return {"key": key, "w": w, "h": h, "size": size, "at": at, "values": out.ravel()[at].tolist(),
            "normalised": norm.ravel()[at].tolist(), "mean": out.mean(), "l2": float(np.sqrt((out**2).sum()))}


def mask(w, h, size):
    key = f"mask {w}x{h}"
    grey = pixels(key, w * h).reshape(h, w)
    out = np.asarray(Image.fromarray(grey).resize((size, size), Image.BILINEAR))
    return {"key": key, "w": w, "h": h, "size": size, "resized": out.ravel().tolist(),
            "positive": int((out / 255 > 0.5).sum())}


golden = {
    "opencv": cv2.__version__,
    "pillow": Image.__version__,
    "images": [image(*a) for a in [(1, 1, 32), (7, 5, 32), (32, 32, 32), (64, 64, 32), (33, 95, 64), (641, 377, 256),
                                   (90, 130, 256), (512, 512, 256), (1, 300, 96), (255, 257, 256)]],
    "masks": [mask(*a) for a in [(1, 1, 8), (5, 3, 16), (16, 16, 16), (17, 15, 16), (32, 32, 16), (100, 37, 16),
                                 (3, 200, 16), (256, 256, 24)]],
}
path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "preprocess.json")
with open(path, "w") as f:
    json.dump(golden, f, separators=(",", ":"))
    f.write("\n")
