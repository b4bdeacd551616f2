"""Scores images with a model, in Python, by ctypes alone:

    RDPP_LIBRARY=lib/librdpp.so python3 detect.py model.safetensors image.png ...

Prints "score normalised anomalous regions width height file" per image.
"""

import ctypes
import os
import sys

ABI = 1


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("threads", ctypes.c_int32), ("device", ctypes.c_char_p),
                ("max_pixels", ctypes.c_int64), ("false_alarm", ctypes.c_double), ("threshold", ctypes.c_double),
                ("pixel_threshold", ctypes.c_double), ("region_low", ctypes.c_double),
                ("min_area", ctypes.c_int64), ("min_length", ctypes.c_int64)]


class Region(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int32), ("y", ctypes.c_int32), ("width", ctypes.c_int32), ("height", ctypes.c_int32),
                ("area", ctypes.c_int64), ("peak", ctypes.c_float), ("mean", ctypes.c_float)]


class Result(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("anomalous", ctypes.c_int32), ("score", ctypes.c_double),
                ("normalised", ctypes.c_double), ("p_value", ctypes.c_double), ("threshold", ctypes.c_double),
                ("pixel_threshold", ctypes.c_double), ("provisional", ctypes.c_int32), ("width", ctypes.c_int32),
                ("height", ctypes.c_int32), ("map_side", ctypes.c_int32), ("region_count", ctypes.c_int64),
                ("regions", ctypes.POINTER(Region)), ("map", ctypes.POINTER(ctypes.c_float)), ("exact", ctypes.c_int32),
                ("p_value_bound", ctypes.c_int32), ("warnings", ctypes.c_char_p), ("map_width", ctypes.c_int32),
                ("map_height", ctypes.c_int32), ("area_x", ctypes.c_double), ("area_y", ctypes.c_double),
                ("area_width", ctypes.c_double), ("area_height", ctypes.c_double), ("pose_x", ctypes.c_double),
                ("pose_y", ctypes.c_double), ("pose_degrees", ctypes.c_double), ("pose_correlation", ctypes.c_double)]


class Detector:
    """An open model; use it in a with statement."""

    def __init__(self, model, library=None, **options):
        self.handle = ctypes.c_uint64(0)
        self.lib = ctypes.CDLL(library or os.environ.get("RDPP_LIBRARY", "librdpp.so"))
        message = ctypes.POINTER(ctypes.c_void_p)
        self.lib.rdpp_open.argtypes = [ctypes.c_char_p, ctypes.POINTER(Options), ctypes.POINTER(ctypes.c_uint64), message]
        self.lib.rdpp_detect_encoded.argtypes = [ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t,
                                                 ctypes.POINTER(Result), message]
        self.lib.rdpp_close.argtypes, self.lib.rdpp_close.restype = [ctypes.c_uint64], None
        self.lib.rdpp_result_free.argtypes, self.lib.rdpp_result_free.restype = [ctypes.POINTER(Result)], None
        self.lib.rdpp_message_free.argtypes, self.lib.rdpp_message_free.restype = [ctypes.c_void_p], None
        if self.lib.rdpp_abi_version() != ABI:
            raise RuntimeError("librdpp.so has another ABI than this program")
        raw = Options(ctypes.sizeof(Options), **options)
        self._call(self.lib.rdpp_open, os.fsencode(model), ctypes.byref(raw), ctypes.byref(self.handle))

    def _call(self, function, *arguments):
        message = ctypes.c_void_p()
        if function(*arguments, ctypes.byref(message)) != 0:
            reason = ctypes.string_at(message.value).decode()
            self.lib.rdpp_message_free(message)
            raise RuntimeError(reason)

    def detect(self, data):
        """Scores an image file's content. Returns the result's fields, regions as dicts and the map as rows."""
        raw = Result(ctypes.sizeof(Result))
        self._call(self.lib.rdpp_detect_encoded, self.handle, data, len(data), ctypes.byref(raw))
        try:
            result = {name: getattr(raw, name) for name, _ in Result._fields_}
            del result["size"]
            for name in ("anomalous", "provisional", "exact", "p_value_bound"):
                result[name] = bool(result[name])
            result["warnings"] = (raw.warnings or b"").decode()
            result["regions"] = [{name: getattr(raw.regions[i], name) for name, _ in Region._fields_}
                                 for i in range(raw.region_count)]
            W = raw.map_width
            result["map"] = [raw.map[y * W:(y + 1) * W] for y in range(raw.map_height)]
            return result
        finally:
            self.lib.rdpp_result_free(ctypes.byref(raw))

    def close(self):
        self.lib.rdpp_close(self.handle)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.close()


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: detect.py MODEL IMAGE...")
    failed = False
    with Detector(sys.argv[1]) as detector:
        for path in sys.argv[2:]:
            try:
                with open(path, "rb") as file:
                    r = detector.detect(file.read())
            except (OSError, RuntimeError) as e:
                print(f"detect: {path}: {e}", file=sys.stderr)
                failed = True
                continue
            print(f"{r['score']:.17g} {r['normalised']:.17g} {int(r['anomalous'])} {len(r['regions'])} "
                  f"{r['width']} {r['height']} {path}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as e:
        sys.exit(f"detect: {e}")
