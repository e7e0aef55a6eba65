"""Executes a notebook with nbclient, says which cell runs, and writes the executed notebook and its HTML.

usage: execute_notebook.py NOTEBOOK OUTPUT_FOLDER

A cell that fails fails the run (exit code 1). The last output of type application/vnd.slimfit.summary+json, a flat object of
texts, is printed as the result.
"""

import pathlib
import sys
import time

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter

SUMMARY = "application/vnd.slimfit.summary+json"


def main() -> int:
    source, folder = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(source, as_version=4)
    code = [i for i, c in enumerate(notebook.cells) if c.cell_type == "code"]
    started = time.time()
    begun = {}

    def on_start(cell, cell_index):
        if cell.cell_type != "code":
            return
        begun[cell_index] = time.time()
        first = next((l for l in cell.source.splitlines() if l.strip() and not l.startswith("//")), "")
        print(f"[{code.index(cell_index) + 1}/{len(code)}] {first[:90]}", flush=True)

    def on_done(cell, cell_index, execute_reply):
        seconds = time.time() - begun[cell_index]
        if seconds > 2:
            print(f"       {seconds:.1f} s", flush=True)

    client = NotebookClient(
        notebook,
        timeout=600,
        kernel_name="slimfit",
        resources={"metadata": {"path": str(folder)}},
        on_cell_start=on_start,
        on_cell_executed=on_done,
    )
    failed = None
    try:
        client.execute()
    except CellExecutionError as error:
        failed = error
    target = folder / source.name
    nbformat.write(notebook, target)
    html, _ = HTMLExporter(template_name="lab").from_notebook_node(notebook)
    page = target.with_suffix(".html")
    page.write_text(html, encoding="utf-8")
    if failed is not None:
        print(f"\na cell failed after {time.time() - started:.0f} s:\n{failed}", file=sys.stderr)
        return 1
    summaries = [o.data[SUMMARY] for c in notebook.cells for o in c.get("outputs", []) if SUMMARY in o.get("data", {})]
    print(f"\n{source.name} ran in {time.time() - started:.0f} s")
    for name, value in (summaries[-1] if summaries else {}).items():
        print(f"  {name}: {value}")
    print(f"  executed notebook: {target}")
    print(f"  the same as HTML:  {page}")
    print("  open JupyterLab:   npx slimfit lab notebooks")
    return 0


if __name__ == "__main__":
    sys.exit(main())
