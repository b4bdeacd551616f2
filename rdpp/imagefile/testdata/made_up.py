#!/usr/bin/python3
"""Makes up TIFF and BMP files, tag by tag, and says what has to be read in them.

    made_up.py COUNT FILE.zip [SEED]

The zip holds the files and expected.json, which maps a name to the picture, [width, height, SHA-256 of R G B], or to a
word of the reason for which it is refused. `go test -run MadeUp -args -made-up FILE.zip` compares.

Where this script knows the samples that it wrote, they are the truth; what is converted (JPEG, YCbCr, CMYK, Lab) is
read by OpenCV, that is by libtiff. OpenCV reads every file, and the outcome is printed: where it reads another picture
than the truth, with what these files have in common. Needs NumPy, OpenCV, Pillow and zstandard. made_up.zip is
`made_up.py 190 made_up.zip 11`, by OpenCV 4.14.
"""
import collections
import hashlib
import io
import json
import random
import struct
import sys
import zipfile
import zlib

import cv2
import numpy as np
import zstandard
from PIL import Image

BYTE, SHORT, LONG, LONG8 = 1, 3, 4, 16
SIZES = {BYTE: ("B", 1), SHORT: ("H", 2), LONG: ("I", 4), LONG8: ("Q", 8)}
NONE, RLE, GROUP3, GROUP4, LZW, JPEG, DEFLATE, PACKBITS, OLD_DEFLATE, ZSTD = 1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000
WHITE, BLACK, RGB, PALETTE, SEPARATED, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8
MIRRORED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def packbits(row):
    out, i = b"", 0
    while i < len(row):
        n = 1
        while i + n < len(row) and n < 128 and row[i + n] == row[i]:
            n += 1
        if n > 1:
            out += bytes([257 - n, row[i]])
        else:
            out += bytes([0, row[i]])
        i += n
    return out


def lzw(data):
    """TIFF's LZW: codes of 9 to 12 bits, the high bit first, a bit longer one code early."""
    bits, out, width = 0, bytearray(), 9
    filled = 0

    def put(code):
        nonlocal bits, filled
        bits, filled = bits << width | code, filled + width
        while filled >= 8:
            filled -= 8
            out.append(bits >> filled & 255)
        bits &= (1 << filled) - 1

    table = {bytes([i]): i for i in range(256)}
    put(256)
    word = b""
    for v in data:
        longer = word + bytes([v])
        if longer in table:
            word = longer
            continue
        put(table[word])
        table[longer] = len(table) + 2
        size = len(table) + 2
        if size >= 4094:
            put(256)
            table, width = {bytes([i]): i for i in range(256)}, 9
        elif size > (1 << width) - 1:
            width += 1
        word = bytes([v])
    if word:
        put(table[word])
        if len(table) + 3 > (1 << width) - 1:
            width += 1
    put(257)
    if filled:
        out.append(bits << (8 - filled) & 255)
    return bytes(out)


def fax(rows, width, compression):
    """Rows of bits, 1 for black, through Pillow's libtiff; None for the few narrow pictures that it misreads itself."""
    bits = np.unpackbits(np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1), axis=1)[:, :width]
    im = Image.fromarray(((1 - bits) * 255).astype(np.uint8)).convert("1")
    out = io.BytesIO()
    name = {RLE: "tiff_ccitt", GROUP3: "group3", GROUP4: "group4"}[compression]
    im.save(out, "TIFF", compression=name, tiffinfo={278: len(rows), 262: WHITE})
    saved = Image.open(io.BytesIO(out.getvalue()))
    assert saved.tag_v2[262] == WHITE and len(saved.tag_v2[273]) == 1 and saved.tag_v2.get(266, 1) == 1
    if saved.tobytes() != im.tobytes():
        return None
    start, size = saved.tag_v2[273][0], saved.tag_v2[279][0]
    return out.getvalue()[start:start + size]


class Tiff:
    """One page."""

    def __init__(self, rng):
        self.rng = rng
        self.tags = {}  # tag: (type, values)
        self.notes = []  # what is unusual about it
        self.order = rng.choice("<>")
        self.big = rng.random() < 0.15
        self.unsorted, self.second = rng.random() < 0.1, rng.random() < 0.08
        if self.unsorted:
            self.note("unsorted tags")
        if self.second:
            self.note("two pages")

    def note(self, text):
        self.notes.append(text)

    def tag(self, tag, values, *types):
        self.tags[tag] = (self.rng.choice(types or (SHORT,)), list(values))

    def page(self, blocks, start, last=True):
        """The bytes of blocks and directory, which begin at start of the file."""
        order, big = self.order, self.big
        out = b""
        self.tags[self.where] = (LONG8 if big and self.rng.random() < 0.3 else LONG, [])
        for block in blocks:
            out += b"\0" * (len(out) % 2)
            self.tags[self.where][1].append(start + len(out))
            out += block
        entries = b""
        items = sorted(self.tags.items())
        if self.unsorted:
            self.rng.shuffle(items)
        room = 8 if big else 4
        for tag, (kind, values) in items:
            letter, _ = SIZES[kind]
            body = struct.pack(order + letter * len(values), *values)
            entries += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, len(values))
            if len(body) > room:
                out += b"\0" * (len(out) % 2)
                entries += struct.pack(order + ("Q" if big else "I"), start + len(out))
                out += body
            else:
                entries += body.ljust(room, b"\0")
        out += b"\0" * (-(start + len(out)) % 8)
        directory = start + len(out)
        out += struct.pack(order + ("Q" if big else "H"), len(items)) + entries
        after = start + len(out) + room
        return out + struct.pack(order + ("Q" if big else "I"), 0 if last else after + (-after % 8)), directory

    def file(self, blocks):
        head = 16 if self.big else 8
        body, directory = self.page(blocks, head, last=not self.second)
        if self.second:  # a page of one grey pixel
            body += b"\0" * (-(head + len(body)) % 8)
            entries = [(256, 1), (257, 1), (258, 8), (259, 1), (262, 1), (273, head), (278, 1), (279, 1)]
            body += struct.pack(self.order + ("Q" if self.big else "H"), len(entries))
            for tag, value in entries:
                if self.big:
                    body += struct.pack(self.order + "HHQQ", tag, LONG8, 1, value)
                else:
                    body += struct.pack(self.order + "HHII", tag, LONG, 1, value)
            body += struct.pack(self.order + ("Q" if self.big else "I"), 0)
        mark = b"II" if self.order == "<" else b"MM"
        if self.big:
            return mark + struct.pack(self.order + "HHHQ", 43, 8, 0, directory) + body
        return mark + struct.pack(self.order + "HI", 42, directory) + body


def turned(a, orientation):
    return {2: lambda: a[:, ::-1], 3: lambda: a[::-1, ::-1], 4: lambda: a[::-1], 5: lambda: a.transpose(1, 0, 2),
            6: lambda: a[::-1].transpose(1, 0, 2), 7: lambda: a[::-1, ::-1].transpose(1, 0, 2),
            8: lambda: a[:, ::-1].transpose(1, 0, 2)}.get(orientation, lambda: a)()


def smooth(np_rng, h, w, channels, bits):
    """Waves with noise, in samples of so many bits."""
    y, x = np.mgrid[:h, :w]
    waves = [0.5 + 0.5 * np.sin(x / np_rng.uniform(1, 9) + y / np_rng.uniform(1, 9) + np_rng.uniform(0, 6)) for _ in range(channels)]
    noisy = np.dstack(waves) + np_rng.normal(0, 0.05, (h, w, channels))
    return np.clip(noisy * (1 << bits), 0, (1 << bits) - 1).astype(np.int64)


def packed(samples, bits, order):
    """Rows of samples (H, N) as a list of bytes."""
    if bits == 8:
        return [row.astype(np.uint8).tobytes() for row in samples]
    if bits in (16, 32, 64):
        return [row.astype(f"{order}u{bits // 8}").tobytes() for row in samples]
    planes = (samples[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row.ravel().astype(np.uint8)).tobytes() for row in planes]


def eight(samples, bits, colour):
    if bits < 8:
        return samples * 255 // ((1 << bits) - 1)
    if bits == 8:
        return samples
    wide = samples << (16 - bits)
    return (wide + 128) // 257 if colour else wide >> 8


def make_tiff(rng, np_rng):
    """Returns bytes, the truth (H, W, 3) or the word of a refusal, and notes; None for no file.

    What is converted is what OpenCV reads in the same file without its orientation: with one it goes wrong in tiles.
    """
    t = Tiff(rng)
    w, h = rng.randint(1, 40), rng.randint(1, 30)
    kind = rng.choices(["grey", "rgb", "palette", "jpeg", "fax", "cmyk", "ycbcr", "lab"], [30, 30, 12, 8, 8, 4, 5, 3])[0]
    refuse = None
    compressions = [NONE, NONE, LZW, DEFLATE, PACKBITS, OLD_DEFLATE, ZSTD]
    colours, photometric, bits = 1, BLACK, 8
    if kind == "grey":
        photometric, bits = rng.choice([WHITE, BLACK, BLACK]), rng.choice([1, 2, 4, 8, 8, 8, 16, 16, 10, 12, 14])
    elif kind == "rgb":
        colours, photometric, bits = 3, RGB, rng.choice([8, 8, 8, 16, 16, 4, 12])
    elif kind == "palette":
        photometric, bits = PALETTE, rng.choice([1, 2, 4, 8, 8])
    elif kind == "fax":
        photometric, bits, compressions = rng.choice([WHITE, BLACK]), 1, [RLE, GROUP3, GROUP4]
    elif kind == "jpeg":
        photometric, compressions = rng.choice([BLACK, YCBCR]), [JPEG]
        colours = 3 if photometric == YCBCR else 1
    elif kind == "cmyk":
        colours, photometric = 4, SEPARATED
    elif kind == "ycbcr":
        colours, photometric = 3, YCBCR
    else:
        colours, photometric = 3, LAB
    compression = rng.choice(compressions)
    t.note(f"{kind} {bits} bits")
    if photometric == WHITE:
        t.note("white is zero")
    t.note(f"compression {compression}")

    extra = 0
    if kind in ("grey", "rgb", "palette") and rng.random() < 0.25:
        extra = 1 if kind != "rgb" or rng.random() < 0.7 else 2
    first_extra = rng.choice([0, 1, 2])
    channels = colours + extra
    samples = smooth(np_rng, h, w, channels, bits)

    # Tiles, strips, planes.
    tiled = kind != "ycbcr" and rng.random() < 0.25
    planar = 2 if channels > 1 and kind not in ("jpeg", "ycbcr") and rng.random() < 0.3 else 1
    tw, th = (16 * rng.randint(1, 3), 16 * rng.randint(1, 3)) if tiled else (w, rng.choice([h, h, rng.randint(1, h)]))
    if kind == "jpeg" and not tiled:
        th = h if h <= 16 or rng.random() < 0.5 else 16
    subsampling = (1, 1)
    if photometric == YCBCR and rng.random() < 0.6:
        subsampling = rng.choice([(2, 2), (2, 1)])
    if kind == "ycbcr" and subsampling[1] == 2 and th < h:
        th = th + th % 2
    predictor = None
    if rng.random() < 0.3 and kind in ("grey", "rgb", "palette", "cmyk") and (bits in (8, 16) or compression in (NONE, PACKBITS)):
        predictor = rng.choice([1, 2, 2])
    predicted = predictor == 2 and compression in (LZW, DEFLATE, OLD_DEFLATE, ZSTD)
    mirrored = rng.random() < 0.2 and kind != "jpeg"

    def encode(part):
        """part: (rows, columns, channels of it)"""
        rows, columns, n = part.shape
        if compression == JPEG:
            im = Image.fromarray(part.astype(np.uint8) if n == 3 else part[:, :, 0].astype(np.uint8))
            out = io.BytesIO()
            im.save(out, "JPEG", quality=85, subsampling={(1, 1): 0, (2, 1): 1, (2, 2): 2}[subsampling])
            return out.getvalue()
        if kind == "ycbcr":
            part = part.astype(np.uint8)
            hs, vs = subsampling
            part = np.pad(part, ((0, -rows % vs), (0, -columns % hs), (0, 0)), "edge")
            units = b""
            for y in range(0, part.shape[0], vs):
                for x in range(0, part.shape[1], hs):
                    units += part[y:y + vs, x:x + hs, 0].tobytes() + part[y, x, 1:].tobytes()
            encoded = [units]
        else:
            flat = part.reshape(rows, -1)
            if predicted:
                flat = flat.copy()
                flat[:, n:] = (flat[:, n:] - flat[:, :-n]) & ((1 << bits) - 1)
            encoded = packed(flat, bits, t.order)
        if compression in (RLE, GROUP3, GROUP4):
            # Codes call white what is 0; where black is zero all bits are the other way round.
            data = fax(encoded, columns, compression)
            if data is None:
                return None
        elif compression == PACKBITS:
            data = b"".join(map(packbits, encoded))
        else:
            data = b"".join(encoded)
            if compression == LZW:
                data = lzw(data)
            elif compression in (DEFLATE, OLD_DEFLATE):
                data = zlib.compress(data)
            elif compression == ZSTD:
                data = zstandard.ZstdCompressor().compress(data)
        return data.translate(MIRRORED) if mirrored else data

    planes = [samples] if planar == 1 else [samples[:, :, i:i + 1] for i in range(channels)]
    blocks = []
    for plane in planes:
        for y in range(0, h, th):
            for x in range(0, w, tw):
                part = plane[y:y + th, x:x + tw]
                if tiled:
                    part = np.pad(part, ((0, th - part.shape[0]), (0, tw - part.shape[1]), (0, 0)), "edge")
                blocks.append(encode(part))
    if None in blocks:
        return None

    # Tags.
    t.tag(256, [w], SHORT, LONG)
    t.tag(257, [h], SHORT, LONG)
    if bits > 1 or kind == "palette" or rng.random() < 0.7:
        count = channels if rng.random() < 0.85 else 1
        if count < channels:
            t.note("one BitsPerSample")
        t.tag(258, [bits] * count)
    if compression != NONE or rng.random() < 0.8:
        t.tag(259, [compression])
    t.tag(262, [photometric])
    if channels > 1 or rng.random() < 0.7:
        t.tag(277, [channels])
    if planar == 2 or rng.random() < 0.5:
        t.tag(284, [planar])
    if mirrored or rng.random() < 0.1:
        t.tag(266, [2 if mirrored else 1])
    if mirrored:
        t.note("FillOrder 2")
    if predictor:
        t.tag(317, [predictor])
        t.note(f"predictor {predictor}")
    if extra and rng.random() < 0.85:
        t.tag(338, [first_extra] + [0] * (extra - 1))
        t.note(f"extra samples {first_extra}")
    elif extra:
        t.note("extra samples without a tag")
    if planar == 2:
        t.note("planar")
    if t.big:
        t.note("BigTIFF")
    if tiled:
        t.note("tiles")
        t.where = 324
        t.tag(322, [tw], SHORT, LONG)
        t.tag(323, [th], SHORT, LONG)
        t.tag(325, [len(b) for b in blocks], SHORT, LONG)
    else:
        t.where = 273
        if len(blocks) > len(planes) or rng.random() < 0.6:
            t.tag(278, [th], SHORT, LONG)
        elif rng.random() < 0.3:
            t.tag(278, [0xffffffff], LONG)
        single = len(blocks) == 1
        if not single or rng.random() < 0.8 or kind == "ycbcr":  # libtiff guesses too few for YCbCr
            t.tag(279, [len(b) for b in blocks], SHORT, LONG)
        elif rng.random() < 0.5 and compression == NONE:
            t.tag(279, [0], LONG)
            t.note("StripByteCounts 0")
        else:
            t.note("no StripByteCounts")
    if photometric == YCBCR:
        t.tag(530, subsampling)
        t.note(f"subsampling {subsampling}")
    orientation = 1
    if rng.random() < 0.35:
        orientation = rng.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
        t.tag(274, [orientation], BYTE, SHORT, SHORT, LONG)
        t.note(f"orientation {orientation}")
    if rng.random() < 0.2:  # what says nothing about the pixels
        t.tag(rng.choice([254, 296, 65000]), [rng.choice([0, 1, 2])], SHORT, LONG)
    colour_map = None
    if photometric == PALETTE:
        colour_map = np_rng.integers(0, 256, (3, 1 << bits))
        if rng.random() < 0.3:
            t.note("colour map of 8 bits")
            t.tag(320, colour_map.ravel().tolist())
        else:
            colour_map[0, 0] = max(colour_map[0, 0], 1)  # wide for certain
            t.tag(320, (colour_map * 256 + np_rng.integers(0, 256, colour_map.shape)).ravel().tolist())
    what = rng.random()
    if what < 0.01:
        del t.tags[262]
        refuse = "no PhotometricInterpretation"
    elif what < 0.02:
        t.tag(339, [rng.choice([2, 3])] * channels)
        refuse = "floating-point" if t.tags[339][1][0] == 3 else "signed"
    elif what < 0.03:
        t.tag(339, [rng.choice([1, 4])] * channels)
        t.note("SampleFormat")
    elif what < 0.04:
        t.tag(259, [rng.choice([34661, 34887, 34925, 50001, 12345])])
        refuse = "compression"
    elif what < 0.05 and kind == "rgb":
        t.tag(262, [rng.choice([4, 7, 9, 32803, 34892])])
        refuse = "PhotometricInterpretation"

    data = t.file(blocks)
    truth = None
    if refuse:
        truth = refuse
        t.note(refuse)
    elif kind in ("grey", "fax"):
        grey = samples[:, :, :1]
        if photometric == WHITE:
            grey = (1 << bits) - 1 - grey
        truth = np.repeat(eight(grey, bits, False), 3, axis=2)
    elif kind == "rgb":
        truth = eight(samples[:, :, :3], bits, True)
    elif kind == "palette":
        truth = colour_map.T[samples[:, :, 0]]
    else:
        t.note("converted")
        t.tags.pop(274, None)
        truth = opencv(t.file(blocks))
        if truth is None:
            return None
    if not refuse:
        truth = turned(truth.astype(np.uint8), orientation)
    return data, truth, t.notes


def shifted(v, bits):
    return v << (8 - bits) if bits <= 8 else v >> (bits - 8)


def run_lengths(np_rng, rng, index, bits):
    """RLE8 or RLE4 of rows from the bottom up, and the picture with what was skipped."""
    out, picture = b"", index.copy()
    for y, row in enumerate(index):
        x = 0
        while x < len(row):
            rest = len(row) - x
            what = rng.random()
            n = min(rest, rng.randint(1, 12))
            if what < 0.1:
                out += bytes([0, 2, n, 0])
                picture[y, x:x + n] = 0
            elif what < 0.5 and n >= 3:
                values = row[x:x + n]
                body = bytes(values.tolist()) if bits == 8 else np.packbits(((values[:, None] >> np.arange(3, -1, -1)) & 1).astype(np.uint8).ravel()).tobytes()
                out += bytes([0, n]) + body + b"\0" * (len(body) % 2)
            elif bits == 8:
                picture[y, x:x + n] = row[x]
                out += bytes([n, row[x]])
            else:
                a, b = int(row[x]), int(row[min(x + 1, len(row) - 1)])
                picture[y, x:x + n] = [a, b][: n] if n < 3 else ([a, b] * n)[:n]
                out += bytes([n, a << 4 | b])
            x += n
        out += b"\0\0" if y < len(index) - 1 or rng.random() < 0.3 else b""
        if rng.random() < 0.02 and y < len(index) - 1:
            picture[y + 1:] = 0
            break
    return out + b"\0\1", picture


def make_bmp(rng, np_rng):
    w, h = rng.randint(1, 40), rng.randint(1, 30)
    size = rng.choice([12, 40, 40, 40, 52, 56, 64, 108, 124])
    bits = rng.choice([1, 4, 8, 16, 24, 32] if size != 12 else [1, 4, 8, 24])
    compression = 0
    notes = [f"BMP {bits} bits, header of {size}"]
    top_down = size != 12 and rng.random() < 0.25
    refuse = None
    after = b""
    masks = None
    if bits in (4, 8) and size != 12 and rng.random() < 0.4:
        compression = 2 if bits == 4 else 1
        top_down = False
    if bits in (16, 32) and size != 64 and rng.random() < 0.6:
        compression = 3
        masks = rng.choice({16: [(0xf800, 0x7e0, 0x1f), (0x7c00, 0x3e0, 0x1f), (0xf00, 0xf0, 0xf), (0x1f, 0x7e0, 0xf800)],
                            32: [(0xff0000, 0xff00, 0xff), (0xff, 0xff00, 0xff0000), (0xff000000, 0xff0000, 0xff00),
                                 (0x3ff00000, 0xffc00, 0x3ff)]}[bits])
        notes.append(f"masks {[hex(m) for m in masks]}")
    elif bits == 16:
        masks = (0x7c00, 0x3e0, 0x1f)
    elif bits == 32:
        masks = (0xff0000, 0xff00, 0xff)
    stride = (w * bits + 31) // 32 * 4
    used = 0
    if bits <= 8:
        index = np_rng.integers(0, 1 << bits, (h, w))
        used = 1 << bits
        if size != 12 and bits > 1 and rng.random() < 0.3:
            used = rng.randint(1, 1 << bits)
            notes.append("fewer colours")
            if rng.random() < 0.7:
                index %= used
        palette = np_rng.integers(0, 256, (used, 3))
        entry = 3 if size == 12 else 4
        after = b"".join(bytes(c.tolist()) + b"\0" * (entry - 3) for c in palette)
        if compression:
            pixels, index = run_lengths(np_rng, rng, index, bits)
            notes.append("run lengths")
            index = index[::-1]
        else:
            rows = [row.ljust(stride, b"\0") for row in packed(index, bits, "<")]
            pixels = b"".join(rows if top_down else rows[::-1])
        table = np.zeros((256, 3), np.int64)
        table[:used] = palette
        truth = table[index][:, :, ::-1]
    elif bits == 24:
        bgr = smooth(np_rng, h, w, 3, 8)
        rows = [row.ljust(stride, b"\0") for row in packed(bgr.reshape(h, -1), 8, "<")]
        pixels = b"".join(rows if top_down else rows[::-1])
        truth = bgr[:, :, ::-1]
    else:
        v = np_rng.integers(0, 1 << bits, (h, w))
        rows = [row.ljust(stride, b"\0") for row in packed(v, bits, "<")]
        pixels = b"".join(rows if top_down else rows[::-1])
        channels = []
        for m in masks:
            low = (m & -m).bit_length() - 1
            channels.append(shifted((v & m) >> low, bin(m).count("1")))
        truth = np.dstack(channels)
        if compression == 3 and size == 40:
            after = struct.pack("<III", *masks)
    if size == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", size, w, -h if top_down else h, 1, bits, compression, len(pixels), 2835, 2835,
                           used if used < 1 << bits or rng.random() < 0.5 else 0, 0)
        if size > 40 and size != 64:
            alpha = 0xff000000 if bits == 32 and masks == (0xff0000, 0xff00, 0xff) else 0
            info += struct.pack("<IIII", *(masks if masks and compression == 3 else (0, 0, 0)), alpha if compression == 3 else 0)[:size - 40]
        info = info.ljust(size, b"\0")
    if rng.random() < 0.02 and size != 12:
        compression = rng.choice([4, 5, 11])
        info = info[:16] + struct.pack("<I", compression) + info[20:]
        refuse = "compression"
        notes.append(refuse)
    gap = b""
    if rng.random() < 0.25:
        gap = b"\xaa" * rng.randint(1, 70)
        notes.append("gap")
    if top_down:
        notes.append("top-down")
    offset = 14 + size + len(after) + len(gap)
    data = b"BM" + struct.pack("<IHHI", offset + len(pixels), 0, 0, offset) + info + after + gap + pixels
    return data, refuse or truth.astype(np.uint8), notes


def opencv(data):
    try:
        m = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if m is None else m[:, :, ::-1]


def main(count, path, seed):
    rng, np_rng = random.Random(seed), np.random.default_rng(seed)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    expected, outcomes, odd = {}, collections.Counter(), collections.Counter()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        while len(expected) < count:
            make = make_bmp if rng.random() < 0.25 else make_tiff
            made = make(rng, np_rng)
            if made is None:
                continue
            data, truth, notes = made
            seen = opencv(data)
            if isinstance(truth, str):
                outcome = "to be refused, OpenCV " + ("refuses it too" if seen is None else "reads it")
            elif seen is None:
                outcome = "refused by OpenCV"
            elif seen.shape == truth.shape and (seen == truth).all():
                outcome = "the same by OpenCV"
            else:
                outcome = "other pixels by OpenCV"
                causes = ["tiles", "planar", "extra samples 2", "unsorted", "masks", "run lengths"]
                odd.update([", ".join(["BMP" if make is make_bmp else "TIFF"] + [c for c in causes if c in " ".join(notes)])])
            outcomes[outcome] += 1
            name = f"{len(expected):05d}.{'bmp' if make is make_bmp else 'tif'}"
            if isinstance(truth, str):
                expected[name] = truth
            else:
                expected[name] = [truth.shape[1], truth.shape[0], hashlib.sha256(np.ascontiguousarray(truth).tobytes()).hexdigest()]
            # What is said of a file stands in its comment.
            info = zipfile.ZipInfo(name)
            info.comment = ", ".join(notes).encode()
            out.writestr(info, data, zipfile.ZIP_DEFLATED)
        out.writestr(zipfile.ZipInfo("expected.json"), json.dumps(expected, indent=0), zipfile.ZIP_DEFLATED)
    print(f"OpenCV {cv2.__version__}, seed {seed}")
    for outcome, n in sorted(outcomes.items()):
        print(f"{n:6d} {outcome}")
    for notes, n in odd.most_common():
        print(f"       other pixels: {n} of {notes}")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
