"""What PyTorch's own matrix products (TFLOP/s of the fastest large square) and copies (GB/s, reading and writing) reach on a device: the bound that peers and product are both measured against.

    python peaks.py --device cuda
"""
import argparse
import json
import time

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--device", default="cuda")
parser.add_argument("--size", type=int, action="append")
options = parser.parse_args()
device = torch.device(options.device)
sync = torch.cuda.synchronize if device.type == "cuda" else (lambda: None)


def seconds_of(call):
    """Median seconds of a call, out of three rounds of at least a tenth of a second."""
    call()
    sync()
    n, taken = 1, 0.0
    rounds = []
    while len(rounds) < 3:
        start = time.perf_counter()
        for _ in range(n):
            call()
        sync()
        taken = time.perf_counter() - start
        if taken < 0.1:
            n *= 2
        else:
            rounds.append(taken / n)
    return sorted(rounds)[1]


found = {}
for name, dtype, tf32 in (("fp32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)):
    torch.backends.cuda.matmul.allow_tf32 = tf32
    best = 0.0
    for size in options.size or [2048, 4096, 8192]:
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        best = max(best, 2 * size**3 / seconds_of(lambda: a @ b) / 1e12)
    found[name] = round(best, 4)
source = torch.zeros((2**26 if device.type == "cuda" else 2**22), device=device)
target = torch.empty_like(source)
found["copy"] = round(2 * 4 * source.numel() / seconds_of(lambda: target.copy_(source)) / 1e9, 2)
print(json.dumps(found))
