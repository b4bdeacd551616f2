"""Makes more_zip.pth, more_legacy.pth and more.json, which holds every tensor's type, shape and values as PyTorch reads them.

The other files (zip.pth, legacy.pth, nested_checkpoint.pth, refuse_* and values.json) are the project's golden figures. Made with
PyTorch 1.13; other versions write other bytes of the same content. Run it in this folder: python3 make.py
"""

import json

import torch

DTYPES = {
    torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32", torch.float64: "F64", torch.int8: "I8",
    torch.uint8: "U8", torch.int16: "I16", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL",
}


def checkpoint():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3))
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 2, 5, 5)).sum().backward()
    optimiser.step()
    shared = {"twice": torch.arange(3, dtype=torch.float32)}
    base = torch.arange(60, dtype=torch.float32)
    return {
        "epoch": 7,
        "best": 0.25,
        "name": "résumé",
        "none": None,
        "flags": (True, False),
        "huge": 2**70,
        "negative": -(2**40),
        "raw": b"\x00\xff",
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([2, 3]),
        "chosen": {1, 2},
        "model": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "parameters": [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.zeros(1), requires_grad=False)],
        "a": shared,
        "b": shared,
        "int8": torch.tensor([-128, 127], dtype=torch.int8),
        "uint8": torch.tensor([0, 255], dtype=torch.uint8),
        "int16": torch.tensor([-32768, 32767], dtype=torch.int16),
        "int32": torch.tensor([-(2**31), 2**31 - 1], dtype=torch.int32),
        "int64": torch.tensor([-(2**53), 2**53]),
        "bool": torch.tensor([True, False]),
        "half": torch.tensor([0.0, -0.0, 2**-24, 1023 * 2**-24, 2**-14, 65504.0, -1 / 3], dtype=torch.float16),
        "bfloat": torch.tensor([0.0, 1e-40, 3e38, -1 / 3], dtype=torch.bfloat16),
        "channels_last": torch.randn(2, 3, 2, 2).contiguous(memory_format=torch.channels_last),
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "every_third": base[5::3],
        "inner": base.view(3, 4, 5)[1:, ::2, 1:4],
        "permuted": base.view(3, 4, 5).permute(2, 0, 1),
        "one_wide": base.view(1, 60)[:, 10:12].t(),
        "scalar_view": base[59],
        "empty_view": base[60:],
        "empty_inside": torch.zeros(2, 0, 3, dtype=torch.float64),
    }


def tensors(name, value):
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from tensors(f"{name}.{i}", item)


def main():
    value = checkpoint()
    torch.save(value, "more_zip.pth")
    torch.save(value, "more_legacy.pth", _use_new_zipfile_serialization=False)
    listed = [
        {"name": name, "dtype": DTYPES[t.dtype], "shape": list(t.shape), "values": t.detach().double().flatten().tolist()}
        for name, t in tensors("", value)
    ]
    with open("more.json", "w") as file:
        json.dump(listed, file, indent=0)


main()
