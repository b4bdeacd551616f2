"""Tries rdpp.py on a model and a PPM file, and prints what Go holds against its own results."""

import ctypes
import sys
import threading

import rdpp


def ppm(path):
    """The width, height and pixels of a PPM file."""
    with open(path, "rb") as file:
        magic, size, most, pixels = file.read().split(b"\n", 3)
    assert (magic, most) == (b"P6", b"255")
    width, height = map(int, size.split())
    return width, height, pixels


def fails(what, error, call, *texts):
    try:
        call()
    except error as e:
        if not isinstance(e, rdpp.Error) or not all(text in str(e) for text in texts):
            sys.exit(f"{what}: got {e!r}, want {texts}")
        return
    sys.exit(f"{what}: got no error")


def show(name, result):
    print(f"{name} {result.score:.17g} {int(result.anomalous)} {len(result.regions)}")


def main():
    model, frame, encoded = sys.argv[1:]
    width, height, pixels = ppm(frame)
    rgb = memoryview(pixels).cast("B", [height, width, 3])
    upper = memoryview(b"\1" * (width * (height // 2)) + b"\0" * (width * (height - height // 2))).cast("B", [height, width])
    assert rdpp.version().count(".") == 2
    with rdpp.Detector(model) as detector:
        plain = detector.detect(rgb)
        show("plain", plain)
        show("file", detector.detect_file(encoded))
        own = (ctypes.c_ubyte * len(pixels)).from_buffer_copy(pixels)  # which need not be copied
        show("own", detector.detect(memoryview(own).cast("B").cast("B", [height, width, 3])))
        swapped = bytearray(pixels)
        swapped[0::3], swapped[2::3] = pixels[2::3], pixels[0::3]
        show("bgr", detector.detect(memoryview(swapped).cast("B", [height, width, 3]), order=rdpp.BGR))
        show("ignoring", detector.detect(rgb, ignore=upper))
        with open(encoded, "rb") as file:
            show("ignoring", detector.detect_encoded(file.read(), ignore=upper))
        grey = detector.detect(memoryview(bytes(pixels[0::3])).cast("B", [height, width]))
        tripled = bytes(v for v in pixels[0::3] for _ in range(3))
        assert grey.score == detector.detect(memoryview(tripled).cast("B", [height, width, 3])).score

        assert (plain.width, plain.height) == (width, height) and plain.area == (0, 0, width, height)
        assert plain.p_value is None or 0 < plain.p_value <= 1
        r = plain.regions[0]
        assert r.area > 0 and 0 <= r.x and r.x + r.width <= width and 0 <= r.y and r.y + r.height <= height and r.peak >= r.mean
        side = len(plain.map)
        assert side == plain.map.shape[0] == plain.map.shape[1] and abs(max(max(row) for row in plain.map.tolist()) - r.peak) < 1e-6

        scores = []
        threads = [threading.Thread(target=lambda: scores.append(detector.detect(rgb).score)) for _ in range(8)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert scores == [plain.score] * 8

        fails("floats", rdpp.ArgumentError, lambda: detector.detect(memoryview(bytes(48)).cast("f", [2, 2, 3])), "uint8")
        fails("a shape", ValueError, lambda: detector.detect(memoryview(bytes(8)).cast("B", [2, 2, 2])), "(2, 2, 2)")
        fails("an order", rdpp.ArgumentError, lambda: detector.detect(rgb, order=rdpp.GREY), "3 channels")
        fails("no image", rdpp.ImageError, lambda: detector.detect_encoded(b"no image"), "not an image")
        fails("all ignored", rdpp.ArgumentError,
              lambda: detector.detect(rgb, ignore=memoryview(b"\1" * (width * height)).cast("B", [height, width])))
        try:
            import numpy
        except ImportError:
            print("without numpy")
        else:
            assert isinstance(plain.map, numpy.ndarray) and plain.map.dtype == numpy.float32
            image = numpy.frombuffer(pixels, numpy.uint8).reshape(height, width, 3)
            show("numpy", detector.detect(image))
            show("numpy", detector.detect(image[..., ::-1], order=rdpp.BGR))  # is copied
            wide = numpy.zeros((height, width + 5, 3), numpy.uint8)
            wide[:, :width] = image
            show("numpy", detector.detect(wide[:, :width]))  # by its stride
            show("ignoring", detector.detect(image, ignore=numpy.asarray(upper).astype(bool)))
            print("with numpy")
    fails("closed", rdpp.ClosedError, lambda: detector.detect(rgb))
    detector.close()
    fails("no model", rdpp.ModelError, lambda: rdpp.Detector(frame), frame)
    fails("no device", rdpp.Error, lambda: rdpp.Detector(model, device="none"))
    try:
        rdpp.Detector(model, library=frame)
        sys.exit("no library: got no error")
    except OSError:
        pass


main()
