"""The kernel behind other front ends: papermill with parameters, the console, `jupyter execute` of a failing notebook.

Prints a summary as JSON on the last line; fails with an assertion that says what went wrong.
"""

import json
import pathlib
import subprocess
import sys

import nbformat
import papermill
import pexpect

BIN = pathlib.Path(sys.executable).parent
METADATA = {"kernelspec": {"name": "slimfit", "language": "typescript", "display_name": "TypeScript (SlimFit)"}}


def notebook(*sources, tag=None):
    cells = [nbformat.v4.new_code_cell(s) for s in sources]
    if tag:
        cells[0].metadata["tags"] = [tag]
    return nbformat.v4.new_notebook(cells=cells, metadata=METADATA)


def with_papermill():
    """Values of every kind reach the cells after the one tagged `parameters`."""
    nbformat.write(
        notebook("const rate = 0.5; const label = 'a'; const list: unknown[] = []; const nothing: unknown = 1;", "JSON.stringify([rate, label, list, nothing])", tag="parameters"), "in.ipynb"
    )
    given = {"rate": 0.75, "label": "it's \"so\"\n`${rate}`\u2028", "list": [1, True, None, {"a b": [2.5, float("1e300")]}], "nothing": None}
    papermill.execute_notebook("in.ipynb", "out.ipynb", parameters=given, progress_bar=False)
    result = nbformat.read("out.ipynb", 4).cells[-1].outputs[-1].data["text/plain"]
    assert json.loads(result) == list(given.values()), result
    return len(given)


def with_console():
    """Lines typed at a terminal: a result, an error, names that stay."""
    console = pexpect.spawn(str(BIN / "jupyter-console"), ["--kernel", "slimfit", "--simple-prompt"], encoding="utf8", timeout=60, dimensions=(40, 200))
    for line, answer in [("const six = 6", None), ("six * 7", "42"), ("nope", "TS2304"), ("`${six}${six}`", "66")]:
        console.expect(r"In \[\d+\]: ")
        console.sendline(line)
        if answer:
            console.expect_exact(answer)
    console.expect(r"In \[\d+\]: ")
    console.sendeof()
    console.expect(r"exit")
    console.sendline("y")
    console.expect(pexpect.EOF)
    console.close()
    return 4


def with_execute():
    """A cell that throws ends `jupyter execute` with an error that names it; the cells before it keep their outputs."""
    nbformat.write(notebook("1 + 1", "const f = () => { throw new RangeError('too far'); };\nf()", "3"), "fails.ipynb")
    run = subprocess.run([BIN / "jupyter-execute", "fails.ipynb"], capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode != 0 and "RangeError: too far" in run.stderr, run.stderr
    return run.returncode


if __name__ == "__main__":
    print(json.dumps({"papermill parameters": with_papermill(), "console lines": with_console(), "failing notebook ends with": with_execute()}))
