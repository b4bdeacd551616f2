"""Makes official.safetensors by the official implementation (package safetensors, 0.5.2 here), which needs no PyTorch for that.

Tensor i, in the order below, has the bytes i, i + 1, i + 2 and so on. Run it in this folder: python3 make_safetensors.py
"""

import safetensors

# name, type as serialize takes it, bytes per element, shape
TENSORS = [
    ("encoder.conv1.weight", "float32", 4, [2, 1, 3]),
    ("half", "float16", 2, [3]),
    ("bfloat", "bfloat16", 2, [2, 2]),
    ("double", "float64", 8, [2]),
    ("count", "int64", 8, []),
    ("int32", "int32", 4, [1]),
    ("int16", "int16", 2, [1]),
    ("int8", "int8", 1, [5]),
    ("uint8", "uint8", 1, [3]),
    ("flag", "bool", 1, [1]),
    ("empty", "float32", 4, [0, 7]),
    ("quoted \"name\" \\ é", "uint8", 1, [1]),
]


def content(i, size, shape):
    n = size
    for dim in shape:
        n *= dim
    return bytes((i + k) % 256 for k in range(n))


tensors = {name: {"dtype": dtype, "shape": shape, "data": content(i, size, shape)} for i, (name, dtype, size, shape) in enumerate(TENSORS)}
with open("official.safetensors", "wb") as file:
    file.write(safetensors.serialize(tensors, {"format": "pt", "note": "<\"é\n\">"}))
