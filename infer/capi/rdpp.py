"""Finds defects with a model that `train` made, by librdpp.so:

    import rdpp

    with rdpp.Detector("model.safetensors") as detector:
        result = detector.detect(frame, order=rdpp.BGR)   # a numpy array, height x width x 3 or height x width
        print(result.anomalous, result.score, result.regions)

It needs nothing but Python 3.9: images are whatever has a buffer of bytes, a numpy array above all. Maps are numpy arrays
where numpy can be imported, else memoryviews of the same shape.

The library is found beside this file, or where $RDPP_LIBRARY says, or by the system. It is loaded when the first detector
is opened. A process that was forked after that must not use it: let workers import and open for themselves ("spawn").
Detectors may be used from any thread, several of them at the same time; Python's lock is free while they compute.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Optional, Tuple, Union

if TYPE_CHECKING:
    import numpy

    Map = Union[numpy.ndarray, memoryview]

__all__ = ["RGB", "BGR", "GREY", "Detector", "Result", "Region", "version", "Error", "ArgumentError", "ClosedError",
           "ModelError", "ImageError", "DeviceError", "OutOfMemoryError", "UnsupportedError"]

RGB, BGR, GREY = 0, 1, 2  # orders of the channels of a pixel

_ABI = 1


class Error(RuntimeError):
    """What the library refused or failed to do. status is its number in rdpp.h."""

    status = 6


class ArgumentError(Error, ValueError):
    """An argument is out of range or of the wrong shape."""

    status = 1


class ClosedError(Error):
    """The detector is closed."""

    status = 2


class ModelError(Error):
    """The model file cannot be read, or is none."""

    status = 3


class ImageError(Error):
    """The encoded image is damaged, too large or of an unknown format."""

    status = 4


class DeviceError(Error):
    """There is no such device, or it has failed."""

    status = 5


class OutOfMemoryError(Error, MemoryError):
    """The memory of the processor or the device is used up; the detector may still be used."""

    status = 8


class UnsupportedError(Error):
    """The library or the device has no operation that is needed."""

    status = 9


_errors = {c.status: c for c in (ArgumentError, ClosedError, ModelError, ImageError, DeviceError, OutOfMemoryError,
                                 UnsupportedError)}


@dataclass(frozen=True)
class Region:
    """A connected part of an image where its map stands out, in pixels of the image."""

    x: int  # left edge of the bounding box
    y: int  # upper edge
    width: int
    height: int
    area: int  # of the region itself
    peak: float  # highest value of the map inside
    mean: float  # of the map's values inside


@dataclass(frozen=True)
class Result:
    """What is known about an image."""

    anomalous: bool  # score > threshold
    score: float  # 0 (like good parts) or more
    normalised: float  # 0 to 1, rises with the score, 0.5 at the threshold
    p_value: Optional[float]  # how rare such a score is among good parts; None: the model is not calibrated
    p_value_bound: bool  # p_value is a bound, as no good part's score is as high
    threshold: float  # in force, of the score
    pixel_threshold: float  # in force, of the map
    provisional: bool  # the threshold is a stand-in that promises no rate of false alarms
    exact: bool  # the rate of false alarms is exact
    width: int  # of the image, pixels
    height: int
    regions: List[Region]  # the highest peak first
    map: Map  # the anomaly map, float32, rows x columns
    area: Tuple[float, float, float, float]  # what the map covers: left, top, width, height, pixels of the image
    warnings: str  # in words: the image was not taken, or stored, as the training images were; "": it was
    pose: Optional[Tuple[float, float, float, float]]  # of a model that aligns parts, where the part was found: to the
    # right and down, pixels of the image, degrees clockwise around its middle, and the correlation with the mean


class _Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("threads", ctypes.c_int32), ("device", ctypes.c_char_p),
                ("max_pixels", ctypes.c_int64), ("false_alarm", ctypes.c_double), ("threshold", ctypes.c_double),
                ("pixel_threshold", ctypes.c_double), ("region_low", ctypes.c_double),
                ("min_area", ctypes.c_int64), ("min_length", ctypes.c_int64)]


class _Region(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int32), ("y", ctypes.c_int32), ("width", ctypes.c_int32), ("height", ctypes.c_int32),
                ("area", ctypes.c_int64), ("peak", ctypes.c_float), ("mean", ctypes.c_float)]


class _Result(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("anomalous", ctypes.c_int32), ("score", ctypes.c_double),
                ("normalised", ctypes.c_double), ("p_value", ctypes.c_double), ("threshold", ctypes.c_double),
                ("pixel_threshold", ctypes.c_double), ("provisional", ctypes.c_int32), ("width", ctypes.c_int32),
                ("height", ctypes.c_int32), ("map_side", ctypes.c_int32), ("region_count", ctypes.c_int64),
                ("regions", ctypes.POINTER(_Region)), ("map", ctypes.POINTER(ctypes.c_float)), ("exact", ctypes.c_int32),
                ("p_value_bound", ctypes.c_int32), ("warnings", ctypes.c_char_p), ("map_width", ctypes.c_int32),
                ("map_height", ctypes.c_int32), ("area_x", ctypes.c_double), ("area_y", ctypes.c_double),
                ("area_width", ctypes.c_double), ("area_height", ctypes.c_double),
                ("pose_x", ctypes.c_double), ("pose_y", ctypes.c_double), ("pose_degrees", ctypes.c_double),
                ("pose_correlation", ctypes.c_double)]


class _Mask(ctypes.Structure):
    _fields_ = [("size", ctypes.c_uint32), ("width", ctypes.c_int32), ("height", ctypes.c_int32),
                ("reserved", ctypes.c_int32), ("stride", ctypes.c_int64), ("pixels", ctypes.c_void_p)]


_message = ctypes.POINTER(ctypes.c_void_p)
_functions = {
    "rdpp_abi_version": (ctypes.c_uint32, []),
    "rdpp_version": (ctypes.c_char_p, []),
    "rdpp_open": (ctypes.c_int32, [ctypes.c_char_p, ctypes.POINTER(_Options), ctypes.POINTER(ctypes.c_uint64), _message]),
    "rdpp_close": (None, [ctypes.c_uint64]),
    "rdpp_detect_pixels_ignoring": (ctypes.c_int32, [
        ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32, ctypes.c_int64, ctypes.c_int32,
        ctypes.POINTER(_Mask), ctypes.POINTER(_Result), _message]),
    "rdpp_detect_encoded_ignoring": (ctypes.c_int32, [
        ctypes.c_uint64, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(_Mask), ctypes.POINTER(_Result), _message]),
    "rdpp_result_free": (None, [ctypes.POINTER(_Result)]),
    "rdpp_message_free": (None, [ctypes.c_void_p]),
}

_libraries: dict[str, Any] = {}
_loading = threading.Lock()


def _load(path: Optional[str]) -> Any:
    """Loads a library, each once."""
    if path is None:
        beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "librdpp.so")
        path = os.environ.get("RDPP_LIBRARY") or (beside if os.path.exists(beside) else "librdpp.so")
    with _loading:
        if path not in _libraries:
            library = ctypes.CDLL(path)
            for name, (result, arguments) in _functions.items():
                try:
                    function = getattr(library, name)
                except AttributeError:
                    raise UnsupportedError(f"{path} has no {name}: use the rdpp.py that came with it") from None
                function.restype, function.argtypes = result, arguments
            if library.rdpp_abi_version() != _ABI:
                raise UnsupportedError(f"{path} has the ABI {library.rdpp_abi_version()}, and this file needs {_ABI}: "
                                       "use the rdpp.py that came with it")
            _libraries[path] = library
        return _libraries[path]


def version(library: Optional[str] = None) -> str:
    """The library's version, such as 0.1.0."""
    return _load(library).rdpp_version().decode()


def _call(library: Any, function: Any, *arguments: Any) -> None:
    message = ctypes.c_void_p()
    status = function(*arguments, ctypes.byref(message))
    if status == 0:
        return
    reason = "no reason is known"
    if message.value:
        reason = ctypes.string_at(message.value).decode("utf-8", "replace")
        library.rdpp_message_free(message)
    error = _errors.get(status, Error)(reason)
    error.status = status
    raise error


class _Pixels:
    """Bytes of an image in memory, kept there while the library reads them."""

    def __init__(self, image: Any, what: str, kinds: str, depths: Tuple[int, ...]):
        view = memoryview(image)
        shape = tuple(view.shape or ())
        if view.format.lstrip("@=<>!") not in tuple(kinds):
            raise ArgumentError(f"{what} has values of the kind {view.format!r}; use 8 bits, such as numpy.uint8")
        if len(shape) == 2:
            shape += (1,)
        if len(shape) != 3 or shape[2] not in depths:
            wanted = " or ".join("height x width" + (f" x {n}" if n > 1 else "") for n in depths)
            raise ArgumentError(f"{what} has the shape {tuple(view.shape or ())}; use {wanted}")
        self.height, self.width, self.depth = shape
        strides = tuple(view.strides or ()) + ((1,) if view.ndim == 2 else ())
        packed = strides[1] == self.depth and (self.depth == 1 or strides[2] == 1)
        if packed and strides[0] >= self.width * self.depth and self._own(image, view, strides[0]):
            return
        rows = view.tobytes()  # in the order of the shape, whatever the strides
        self.kept = (ctypes.c_char * max(len(rows), 1)).from_buffer_copy(rows or b"\0")
        self.address, self.stride = ctypes.addressof(self.kept), 0

    def _own(self, image: Any, view: memoryview, stride: int) -> bool:
        """Takes the address of a buffer that need not be copied, where Python tells it."""
        interface = getattr(image, "__array_interface__", None)
        if interface is not None:  # numpy's, which may be read-only
            self.kept, self.address, self.stride = image, interface["data"][0], stride
            return True
        if view.readonly or not view.c_contiguous:
            return False
        self.kept = (ctypes.c_char * view.nbytes).from_buffer(view)
        self.address, self.stride = ctypes.addressof(self.kept), stride
        return True


def _mask(ignore: Any) -> Tuple[Any, Any]:
    """The mask for the library, and what has to live as long."""
    if ignore is None:
        return None, None
    pixels = _Pixels(ignore, "the mask", "B?", (1,))
    raw = _Mask(ctypes.sizeof(_Mask), pixels.width, pixels.height, 0, pixels.stride, pixels.address)
    return ctypes.byref(raw), (pixels, raw)


def _map(raw: _Result) -> Any:
    """A copy of a map."""
    height, width = raw.map_height, raw.map_width
    values = (ctypes.c_float * max(height * width, 1))()
    if raw.map:
        ctypes.memmove(values, raw.map, 4 * height * width)
    try:
        import numpy
    except ImportError:
        if height * width == 0:
            return memoryview(b"").cast("f")
        return memoryview(values).cast("B").cast("f", [height, width])
    return numpy.frombuffer(values, numpy.float32, height * width).reshape(height, width)


def _result(raw: _Result) -> Result:
    regions = [Region(*(getattr(raw.regions[i], name) for name, _ in _Region._fields_)) for i in range(raw.region_count)]
    p_value = None if raw.p_value != raw.p_value else raw.p_value
    return Result(bool(raw.anomalous), raw.score, raw.normalised, p_value, bool(raw.p_value_bound), raw.threshold,
                  raw.pixel_threshold, bool(raw.provisional), bool(raw.exact), raw.width, raw.height, regions, _map(raw),
                  (raw.area_x, raw.area_y, raw.area_width, raw.area_height), (raw.warnings or b"").decode("utf-8", "replace"),
                  (raw.pose_x, raw.pose_y, raw.pose_degrees, raw.pose_correlation) if raw.pose_correlation else None)


class Detector:
    """An open model. Use it in a with statement, or close it; it closes itself where it is forgotten.

    device: "auto", "cpu", "cuda" or "cuda:N". threads: of one operation on the CPU, for the whole process. false_alarm,
    threshold and pixel_threshold take the place of the model's own; region_low, min_area and min_length say which regions
    are told of, as in rdpp.h. 0 and None are the defaults.
    """

    def __init__(self, model: Union[str, "os.PathLike[str]"], *, library: Optional[str] = None, device: Optional[str] = None,
                 threads: int = 0, max_pixels: int = 0, false_alarm: float = 0, threshold: float = 0,
                 pixel_threshold: float = 0, region_low: float = 0, min_area: int = 0, min_length: int = 0):
        self._handle = ctypes.c_uint64(0)
        self._library = _load(library)
        options = _Options(ctypes.sizeof(_Options), threads, None if device is None else device.encode(), max_pixels,
                           false_alarm, threshold, pixel_threshold, region_low, min_area, min_length)
        _call(self._library, self._library.rdpp_open, os.fsencode(model), ctypes.byref(options), ctypes.byref(self._handle))

    def detect(self, image: Any, *, order: Optional[int] = None, ignore: Any = None) -> Result:
        """Scores an image in memory: bytes, height x width x 3 in the order RGB (default) or BGR, or height x width.

        ignore is a mask, height x width of bytes or bools: where it is not 0, nothing is scored.
        """
        pixels = _Pixels(image, "the image", "B", (3, 1))
        if order is None:
            order = RGB if pixels.depth == 3 else GREY
        if (order == GREY) != (pixels.depth == 1):
            raise ArgumentError(f"the image has {pixels.depth} channels, which is not the order that was named")
        mask, kept = _mask(ignore)
        return self._detect(self._library.rdpp_detect_pixels_ignoring, pixels.address, pixels.width, pixels.height,
                            pixels.stride, order, mask)

    def detect_encoded(self, data: Union[bytes, bytearray, memoryview], *, ignore: Any = None) -> Result:
        """Scores the content of a PNG, JPEG, BMP, TIFF or WebP file. ignore is as for detect."""
        content = bytes(data)
        mask, kept = _mask(ignore)
        return self._detect(self._library.rdpp_detect_encoded_ignoring, content, len(content), mask)

    def detect_file(self, path: Union[str, "os.PathLike[str]"], *, ignore: Any = None) -> Result:
        """Scores an image file. ignore is as for detect."""
        with open(path, "rb") as file:
            return self.detect_encoded(file.read(), ignore=ignore)

    def _detect(self, function: Any, *arguments: Any) -> Result:
        raw = _Result(ctypes.sizeof(_Result))
        _call(self._library, function, self._handle, *arguments, ctypes.byref(raw))
        try:
            return _result(raw)
        finally:
            self._library.rdpp_result_free(ctypes.byref(raw))

    def close(self) -> None:
        """Frees the model. Closing again does nothing; what is asked of it afterwards is a ClosedError."""
        if self._handle.value:
            self._library.rdpp_close(self._handle)

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *unused: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None:
            self.close()
