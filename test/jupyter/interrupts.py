"""The stop button and the restart button, pressed through jupyter_client while a model trains and while a cell blocks.

Prints a summary as JSON on the last line; fails with an assertion that says what went wrong.
"""

import json
import random
import statistics
import time

import psutil
from jupyter_client.manager import start_new_kernel

INTERRUPTS = 50

SETUP = """
const { BertForSequenceClassification, SlimFitTrainer, TextDataset, Tokenizer } = slimfit;
const task = slimfit.glueTask('cola');
const tokenizer = Tokenizer.fromFolder(slimfit.embeddedModel());
const model = await BertForSequenceClassification.fromPretrained(slimfit.embeddedModel(), { labels: task.labels, onNotice: () => {} });
const train = new TextDataset(slimfit.generateAcceptability(2000, 1), tokenizer, { maxLength: 24 });
const trainer = new SlimFitTrainer({ model, train, freezeRate: 0.9, batchSize: 32, totalSteps: 1_000_000, learningRate: 1e-3 });
let finished: number[] = [];
for await (const r of trainer.steps(40)) finished.push(Date.now());
"""
LOOP = "for await (const r of trainer.steps(100_000)) finished.push(Date.now());"
STATE = "const { loss } = await trainer.step(); const seen = finished; finished = []; ({ usable: Number.isFinite(loss), tensors: model.engine.memory().tensors, next: trainer.nextStep, seen })"


def run(kc, code, timeout=60):
    """Runs a cell. Returns its reply and the JSON of its result."""
    return outcome(kc, kc.execute(code), timeout)


def outcome(kc, msg_id, timeout=10):
    reply = kc._recv_reply(msg_id, timeout=timeout)
    published = []
    while True:
        message = kc.get_iopub_msg(timeout=10)
        published.append(message)
        if message["parent_header"].get("msg_id") == msg_id and message["content"].get("execution_state") == "idle":
            return reply["content"], published


def value(kc, code):
    """The value of an expression, through JSON."""
    content, published = run(kc, f"{code.rpartition(';')[0]}; JSON.stringify({code.rpartition(';')[2]})")
    assert content["status"] == "ok", content
    return json.loads(next(m for m in published if m["msg_type"] == "execute_result")["content"]["data"]["text/plain"])


def until_running(kc, msg_id):
    while True:
        message = kc.get_iopub_msg(timeout=10)
        if message["msg_type"] == "execute_input" and message["parent_header"]["msg_id"] == msg_id:
            return


def interrupts(km, kc):
    """Interrupts a training loop again and again; each time it ends within a step and can go on."""
    content, _ = run(kc, SETUP, timeout=120)
    assert content["status"] == "ok", content
    before = value(kc, STATE)
    draw = random.Random(43)
    latencies, after = [], []
    for _ in range(INTERRUPTS):
        msg_id = kc.execute(LOOP)
        until_running(kc, msg_id)
        time.sleep(draw.uniform(0, 0.4))
        pressed = time.time()
        km.interrupt_kernel()
        content, published = outcome(kc, msg_id)
        latencies.append(1000 * (time.time() - pressed))
        assert content["status"] == "error" and content["ename"] == "InterruptError", content
        # The kernel's own time stamp of the moment in which the interrupt arrived, by the clock that the steps are timed with.
        arrived = next(m["header"]["date"].timestamp() * 1000 for m in published if m["parent_header"].get("msg_type") == "interrupt_request")
        state = value(kc, STATE)
        late = sum(1 for t in state["seen"] if t > arrived)
        after.append(late)
        assert late <= 1, f"{late} steps finished after the interrupt"
        assert state["usable"], "the step after an interrupt has no finite loss"
        # The step by hand adds one; one more may have been finished whose record the stopped loop did not get to see.
        steps = state["next"] - before["next"]
        assert steps - len(state["seen"]) in (1, 2), f"{steps} steps, {len(state['seen'])} of them seen"
        assert state["tensors"] == before["tensors"], f"{before['tensors']} tensors before, {state['tensors']} after an interrupt"
        before = state
    return {
        "interrupts": INTERRUPTS,
        "steps finished after it, at most": max(after),
        "tensors": before["tensors"],
        "steps": before["next"],
        "latency ms": {"median": round(statistics.median(latencies)), "max": round(max(latencies))},
    }


BLOCKED = {
    "for (;;) {}": "for (;;) {}",
    "await, then for (;;) {}": "await null; for (;;) {}",
    "Atomics.wait": "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);",
}


def restarts(km, kc):
    """Restarts a kernel whose cell blocks the thread; then shuts it down in the same state. Nothing stays behind."""
    seconds = {}
    for name, code in BLOCKED.items():
        old = km.provisioner.process.pid
        until_running(kc, kc.execute(code))
        time.sleep(0.3)
        started = time.time()
        km.restart_kernel()
        kc.wait_for_ready(timeout=20)
        seconds[name] = round(time.time() - started, 2)
        assert seconds[name] < 3, f"restart during {name}: {seconds[name]} s"
        assert not psutil.pid_exists(old), f"the kernel of {name} stayed behind"
        assert run(kc, "1")[0]["status"] == "ok"
    until_running(kc, kc.execute(BLOCKED["Atomics.wait"]))
    old = km.provisioner.process.pid
    started = time.time()
    km.shutdown_kernel()
    seconds["shutdown"] = round(time.time() - started, 2)
    assert seconds["shutdown"] < 3, f"shutdown: {seconds['shutdown']} s"
    assert not psutil.pid_exists(old), "the kernel stayed behind"
    assert psutil.Process().children(recursive=True) == [], "processes stayed behind"
    return seconds


if __name__ == "__main__":
    km, kc = start_new_kernel(kernel_name="slimfit")
    try:
        summary = interrupts(km, kc)
        summary["restart s"] = restarts(km, kc)
    finally:
        kc.stop_channels()
        if km.has_kernel:
            km.shutdown_kernel(now=True)
    print(json.dumps(summary))
