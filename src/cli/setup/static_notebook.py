"""Makes an executed notebook readable without a kernel and without scripts: figures as pictures, tables as they are.

usage: static_notebook.py EXECUTED TARGET

A figure's interactive HTML is left out, its SVG stays; scripts in other outputs are removed. Times, identifiers of displays and other
traces of the run are removed too, so that running again changes only what came out differently.
"""

import pathlib
import re
import sys

import nbformat

SCRIPT = re.compile(r"<script\b.*?</script>", re.DOTALL | re.IGNORECASE)


def static(output):
    """The output without what needs a script."""
    data = output.get("data")
    if data is None:
        return output
    if "image/svg+xml" in data:
        data.pop("text/html", None)
    elif "text/html" in data:
        data["text/html"] = SCRIPT.sub("", data["text/html"])
    output["metadata"] = {}
    output.pop("transient", None)
    return output


def main() -> None:
    notebook = nbformat.read(sys.argv[1], as_version=4)
    notebook.metadata = {k: notebook.metadata[k] for k in ("kernelspec", "language_info") if k in notebook.metadata}
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.outputs = [static(o) for o in cell.outputs]
    nbformat.write(notebook, pathlib.Path(sys.argv[2]))


if __name__ == "__main__":
    main()
