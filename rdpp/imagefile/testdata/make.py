#!/usr/bin/python3
"""Writes the pictures of this folder and opencv.json: what OpenCV reads in them.

Needs OpenCV 4.6, NumPy, Pillow and libjpeg-turbo 2.1 with its cjpeg and
libturbojpeg.so.0 (Debian 12: python3-opencv python3-pil libjpeg-turbo-progs
libturbojpeg0). opencv.json maps a file name to [width, height, base64 of R G B].
"""
import base64
import ctypes
import io
import json
import os
import struct
import subprocess
import zlib

import cv2
import numpy as np
from PIL import Image


def picture(rng, w, h):
    """Smooth colour with some noise: compresses, and fills the whole range."""
    y, x = np.mgrid[:h, :w]
    waves = [128 + 120 * np.sin(x / rng.uniform(1, 9) + y / rng.uniform(1, 9) + rng.uniform(0, 6)) for _ in range(3)]
    return np.clip(np.dstack(waves) + rng.normal(0, 12, (h, w, 3)), 0, 255).astype(np.uint8)


def save(im, fmt, **options):
    out = io.BytesIO()
    im.save(out, fmt, **options)
    return out.getvalue()


def exif(orientation):
    e = Image.Exif()
    e[0x112] = orientation
    return e.tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png(samples, depth, colour, interlaced=False, extra=b""):
    """A PNG of samples (H, W, channels), rows filtered by None or Up; extra chunks go before IDAT."""
    h, w, _ = samples.shape
    raw = b""
    for x0, y0, dx, dy in ADAM7 if interlaced else [(0, 0, 1, 1)]:
        part = samples[y0::dy, x0::dx]
        if part.size == 0:
            continue
        rows = []
        for row in part.reshape(part.shape[0], -1):
            bits = (row[:, None].astype(np.int64) >> np.arange(depth - 1, -1, -1)) & 1
            rows.append(np.packbits(bits.astype(np.uint8).ravel()))
        for i, row in enumerate(rows):
            raw += b"\0" + row.tobytes() if i % 2 == 0 else b"\2" + (row - rows[i - 1]).tobytes()
    head = struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def ycck(cmyk):
    """A YCCK JPEG of inverted CMYK samples, by TurboJPEG."""
    tj = ctypes.CDLL("libturbojpeg.so.0")
    tj.tjInitCompress.restype = ctypes.c_void_p
    handle, out, size = ctypes.c_void_p(tj.tjInitCompress()), ctypes.c_void_p(), ctypes.c_ulong()
    h, w, _ = cmyk.shape
    pixels, TJPF_CMYK, TJSAMP_420 = np.ascontiguousarray(cmyk), 11, 2
    if tj.tjCompress2(handle, pixels.ctypes.data_as(ctypes.c_void_p), w, 0, h, TJPF_CMYK,
                      ctypes.byref(out), ctypes.byref(size), TJSAMP_420, 85, 0):
        raise RuntimeError("tjCompress2 failed")
    data = ctypes.string_at(out, size.value)
    tj.tjFree(out)
    tj.tjDestroy(handle)
    return data


def cjpeg(rgb, *options):
    h, w, _ = rgb.shape
    return subprocess.run(["cjpeg", *options], input=b"P6 %d %d 255\n" % (w, h) + rgb.tobytes(),
                          capture_output=True, check=True).stdout


def files(rng, w, h):
    """Yields (name, bytes) of every kind of file, all w x h."""
    a = picture(rng, w, h)
    im = Image.fromarray(a)
    grey = Image.fromarray(a[:, :, 0])
    alpha = rng.integers(0, 256, (h, w, 1), dtype=np.uint8)
    rgba = Image.fromarray(np.dstack([a, alpha]))
    cmyk = picture(rng, w, h), picture(rng, w, h)[:, :, :1]
    wide = rng.integers(0, 65536, (h, w, 4))

    for o in range(1, 9):
        yield f"orient{o}.jpg", save(im, "JPEG", quality=90, exif=exif(o))
        yield f"orient{o}.png", png(a, 8, 2, extra=chunk(b"eXIf", exif(o)[6:]))
        yield f"orient{o}.tif", save(im, "TIFF", compression="tiff_lzw", tiffinfo={0x112: o})
    yield "420.jpg", save(im, "JPEG", quality=75, subsampling=2)
    yield "422.jpg", save(im, "JPEG", quality=75, subsampling=1)
    yield "grey.jpg", save(grey, "JPEG", quality=75)
    yield "progressive.jpg", save(im, "JPEG", quality=85, progressive=True)
    yield "cmyk.jpg", save(Image.fromarray(np.dstack(cmyk), "CMYK"), "JPEG", quality=85)
    yield "ycck.jpg", ycck(np.dstack(cmyk))
    yield "rgb.jpg", cjpeg(a, "-rgb", "-quality", "80")
    yield "odd_sampling.jpg", cjpeg(a, "-sample", "3x1,1x1,1x1", "-quality", "80")
    yield "arithmetic.jpg", cjpeg(a, "-arithmetic", "-quality", "80")
    yield "restart.jpg", cjpeg(a, "-restart", "2B", "-quality", "80")

    for depth in 1, 2, 4, 8, 16:
        g = wide[:, :, :1] >> (16 - depth)
        yield f"grey{depth}.png", png(g, depth, 0)
        yield f"grey{depth}_interlaced.png", png(g, depth, 0, True)
        yield f"grey{depth}_trns.png", png(g, depth, 0, extra=chunk(b"tRNS", struct.pack(">H", int(g[0, 0, 0]))))
    for depth in 1, 2, 4, 8:
        index = wide[:, :, :1] >> (16 - depth)
        palette = chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
        yield f"palette{depth}.png", png(index, depth, 3, extra=palette)
        yield f"palette{depth}_trns.png", png(index, depth, 3, True, palette + chunk(b"tRNS", b"\0\x80"))
    for depth in 8, 16:
        v = wide >> (16 - depth)
        yield f"rgb{depth}.png", png(v[:, :, :3], depth, 2)
        yield f"rgb{depth}_interlaced.png", png(v[:, :, :3], depth, 2, True)
        yield f"rgb{depth}_trns.png", png(v[:, :, :3], depth, 2, extra=chunk(b"tRNS", struct.pack(">HHH", *map(int, v[0, 0, :3]))))
        yield f"rgba{depth}.png", png(v, depth, 6)
        yield f"greyalpha{depth}.png", png(v[:, :, :2], depth, 4, True)

    yield "rgb.bmp", save(im, "BMP")
    yield "rgba.bmp", save(rgba, "BMP")
    yield "grey.bmp", save(grey, "BMP")
    yield "bilevel.bmp", save(grey.convert("1"), "BMP")
    yield "palette.bmp", save(im.quantize(16), "BMP")

    yield "grey.tif", save(grey, "TIFF", compression="packbits")
    yield "grey16.tif", save(Image.fromarray(wide[:, :, 0].astype(np.uint16)), "TIFF", compression="tiff_lzw")
    yield "bilevel_g4.tif", save(grey.convert("1"), "TIFF", compression="group4")
    yield "palette.tif", save(im.quantize(64), "TIFF", compression="tiff_adobe_deflate")
    yield "rgb16.tif", cv2.imencode(".tif", wide[:, :, :3].astype(np.uint16))[1].tobytes()
    yield "rgb_deflate.tif", save(im, "TIFF", compression="tiff_adobe_deflate")

    yield "lossy.webp", save(im, "WEBP", quality=80)
    yield "lossy_orient6.webp", save(im, "WEBP", quality=40, exif=exif(6))
    yield "lossy_alpha.webp", save(rgba, "WEBP", quality=60, exact=True)
    yield "lossless.webp", save(im, "WEBP", lossless=True)
    yield "lossless_alpha.webp", save(rgba, "WEBP", lossless=True, exact=True)


def opencv(data):
    m = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    return [m.shape[1], m.shape[0], base64.b64encode(m.tobytes()).decode()]


if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))
    expected = {}
    for name, data in files(np.random.default_rng(7), 21, 13):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
        expected[name] = opencv(data)
    with open(os.path.join(folder, "opencv.json"), "w") as f:
        f.write("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in expected.items()) + "\n}\n")
