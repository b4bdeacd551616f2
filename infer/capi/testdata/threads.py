"""Prints how many threads libtorch computes with once a model of sys.argv is open."""

import ctypes
import sys

import rdpp

with rdpp.Detector(sys.argv[1]) as detector:
    detector.detect_file(sys.argv[2])
    with open("/proc/self/maps") as maps:
        path = next(line.split()[-1] for line in maps if "libtorch_cpu.so" in line)
    print(ctypes.CDLL(path)._ZN2at15get_num_threadsEv())  # at::get_num_threads()
