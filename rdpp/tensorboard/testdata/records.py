#!/usr/bin/env python3
"""Writes records.bin, what TensorBoard's own messages and check sums make of a head and two events: records.py >records.bin

Needs PyPI's tensorboard; it was made with 2.21.0.
"""
import struct
import sys

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c


def record(event):
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def scalars(time, step, *points):
    return Event(wall_time=time, step=step, summary=Summary(value=[Summary.Value(tag=t, simple_value=v) for t, v in points]))


for event in (
    Event(wall_time=1.5, file_version="brain.Event:2"),
    Event(wall_time=1.5, step=300, session_log=SessionLog(status=SessionLog.START)),
    scalars(2.25, 300, ("loss/total", 0.125), ("Bild/ä", -3.5)),
    scalars(2.25, 0, ("loss/total", 0)),
):
    sys.stdout.buffer.write(record(event))
