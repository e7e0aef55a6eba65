"""Spreads the runs of a study over a Ray cluster: one Ray task for each run that is not done, each calling `slimfit study run FOLDER --job K`.

    slimfit study init FOLDER --task grammar --policies none,ils --freeze-rates 0.5,0.9 --seeds 1,2
    python bench/study_ray.py FOLDER [--cpus 1] [--slimfit "npx slimfit"]

The folder must be one that all machines share. A task that Ray starts again, or a second call of this script, does no run twice: runs are claimed by files in the folder. Needs `pip install ray`; run with
Ray 2.60.0 and Python 3.11 on one machine of 2 cores, two runs at a time.
"""

import argparse
import os
import re
import shlex
import subprocess
import sys
import time

import ray


@ray.remote(max_retries=2)
def do_run(slimfit, folder, job, cpus):
    """Does one run. @returns its exit code, and what it printed last"""
    # TensorFlow takes every core unless it is told otherwise.
    threads = {"TF_NUM_INTRAOP_THREADS": str(cpus), "TF_NUM_INTEROP_THREADS": "1", "OMP_NUM_THREADS": str(cpus)}
    done = subprocess.run([*slimfit, "study", "run", folder, "--job", str(job)], env={**os.environ, **threads}, capture_output=True, text=True)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def main() -> int:
    parser = argparse.ArgumentParser(description="the runs of a SlimFit study as Ray tasks")
    parser.add_argument("folder")
    parser.add_argument("--cpus", type=int, default=1, help="cores of one run")
    parser.add_argument("--slimfit", default="npx slimfit", help="the command, where it is called otherwise")
    args = parser.parse_args()
    folder, slimfit = os.path.abspath(args.folder), shlex.split(args.slimfit)
    listed = subprocess.run([*slimfit, "study", "list", folder], check=True, capture_output=True, text=True).stdout
    # Number, state, id, and the run in words.
    runs = [re.match(r"\s*(\d+)\s+(\w+)\s+\w+\s+(.*)", line).groups() for line in listed.splitlines()]
    open_runs = {int(number): words for number, state, words in runs if state != "done"}
    ray.init(log_to_driver=False)
    began = time.time()
    tasks = {do_run.options(num_cpus=args.cpus).remote(slimfit, folder, job, args.cpus): job for job in open_runs}
    failed = 0
    waiting = list(tasks)
    while waiting:
        (task,), waiting = ray.wait(waiting)
        code, last = ray.get(task)
        failed += code != 0
        print(f"{time.time() - began:6.1f} s  {'done' if code == 0 else f'exit {code}: {last}'}  {open_runs[tasks[task]]}", flush=True)
    print(subprocess.run([*slimfit, "study", "table", folder], capture_output=True, text=True).stdout)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
