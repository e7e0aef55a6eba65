"""What the kernel costs, beside plain tslab, through jupyter_client, in one run: start, first cell, trivial cell, completion, inspection, ten thousand prints.

usage: kernel.py PROJECT (npm run bench:kernel)
"""

import json
import math
import os
import pathlib
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(sys.argv[1]).resolve()
ROUNDS = 3


def add_tslab(folder):
    spec = pathlib.Path(folder) / "kernels" / "tslab-plain"
    spec.mkdir(parents=True)
    argv = ["node", str(ROOT / "node_modules/tslab/bin/tslab"), "kernel", "--config-path={connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "tslab", "language": "typescript"}))
    os.environ["JUPYTER_PATH"] = str(folder)


def timed(work, times=1):
    took = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        took.append(1000 * (time.perf_counter() - begun))
    return statistics.median(took)


def measure(name):
    from jupyter_client.manager import start_new_kernel

    begun = time.perf_counter()
    km, kc = start_new_kernel(kernel_name=name, startup_timeout=60)
    result = {"start, until it answers": 1000 * (time.perf_counter() - begun)}

    def cell(code):
        def check(message):
            assert message["msg_type"] != "error", message["content"]

        reply = kc.execute_interactive(code, timeout=20, output_hook=check, allow_stdin=False)
        assert reply["content"]["status"] == "ok", reply["content"]

    try:
        result["first cell"] = timed(lambda: cell("1 + 1"))
        cell("const list = [1, 2, 3];")
        result["trivial cell"] = timed(lambda: cell("list.length"), 30)
        result["completion"] = timed(lambda: kc.complete("list.fi", 7, reply=True, timeout=30), 20)
        result["inspection"] = timed(lambda: kc.inspect("list.filter", 9, reply=True, timeout=30), 20)
        try:
            result["10,000 prints"] = timed(lambda: cell("for (let i = 0; i < 10_000; i++) console.log(i)"), 3)
        except TimeoutError:
            # More messages at once than its socket takes: the rest, the end of the cell among them, is dropped.
            result["10,000 prints"] = math.inf
    finally:
        kc.stop_channels()
        km.shutdown_kernel(now=True)
    return result


with tempfile.TemporaryDirectory() as folder:
    add_tslab(folder)
    names = ("slimfit", "tslab-plain")
    runs = {n: [] for n in names}
    for _ in range(ROUNDS):
        for n in names:
            runs[n].append(measure(n))
print("| milliseconds, median of 3 runs | SlimFit | tslab |\n|---|---|---|")
for what in runs["slimfit"][0]:
    middle = [statistics.median(r[what] for r in runs[n]) for n in names]
    print(f"| {what} |", " | ".join("never ends" if math.isinf(m) else f"{m:.0f}" for m in middle), "|")
