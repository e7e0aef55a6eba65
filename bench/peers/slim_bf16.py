"""bench_torch.py with the authors' scheme under bf16 autocast: its autograd functions run backward in the precision of forward, as autocast does for PyTorch's own. Arguments are those of bench_torch.py, which lies
beside this file or on PYTHONPATH.

    python slim_bf16.py --model bert-base --batch 32 --tokens 128 --mode slim --rate 0.9 --precision bf16 --device cuda
"""
import importlib.util
import runpy
import sys

import slimref
import torch


def autocast(function, device):
    """Wraps both passes so that autocast is in backward what it was in forward."""
    function.forward = staticmethod(torch.amp.custom_fwd(function.forward, device_type=device))
    function.backward = staticmethod(torch.amp.custom_bwd(function.backward, device_type=device))


device = sys.argv[sys.argv.index("--device") + 1] if "--device" in sys.argv else "cpu"
for function in vars(slimref).values():
    if isinstance(function, type) and issubclass(function, torch.autograd.Function):
        autocast(function, torch.device(device).type)
runpy.run_path(importlib.util.find_spec("bench_torch").origin, run_name="__main__")
