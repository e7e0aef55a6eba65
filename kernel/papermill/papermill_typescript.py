"""Papermill's parameters in TypeScript: `papermill in.ipynb out.ipynb -p rate 0.9` sets `rate` after the cell tagged `parameters`."""

import json
import math
import re

from papermill.engines import NBClientEngine
from papermill.models import Parameter
from papermill.translators import Translator, papermill_translators

# `const rate: number = 0.5; // share of the layers that is frozen`
DECLARATION = re.compile(r"\b(?:const|let|var)\s+([\w$]+)\s*(?::\s*([^=;]+?))?\s*=\s*([^;\n]+);?[^\S\n]*(?://[^\S\n]*([^\n]*))?")


class TypeScriptTranslator(Translator):
    """Writes values of Python as expressions of TypeScript."""

    @classmethod
    def translate_none(cls, val):
        return "null"

    @classmethod
    def translate_bool(cls, val):
        return "true" if val else "false"

    @classmethod
    def translate_int(cls, val):
        return str(val) if abs(val) < 2**53 else f"{val}n"

    @classmethod
    def translate_float(cls, val):
        if math.isnan(val):
            return "NaN"
        if math.isinf(val):
            return "Infinity" if val > 0 else "-Infinity"
        return repr(val)

    @classmethod
    def translate_str(cls, val):
        # JSON's texts are TypeScript's, with the two line ends that JSON allows in them escaped.
        return json.dumps(str(val))

    @classmethod
    def translate_dict(cls, val):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {cls.translate(v)}" for k, v in val.items()) + "}"

    @classmethod
    def translate_list(cls, val):
        return "[" + ", ".join(cls.translate(v) for v in val) + "]"

    @classmethod
    def translate_tuple(cls, val):
        return cls.translate_list(val)

    @classmethod
    def comment(cls, cmt_str):
        return f"// {cmt_str}".rstrip()

    @classmethod
    def assign(cls, name, str_val):
        return f"const {name} = {str_val};"

    @classmethod
    def inspect(cls, parameters_cell):
        """The variables that a parameters cell declares, for `papermill --help-notebook` and to warn of unknown ones."""
        return [
            Parameter(name=name, inferred_type_name=(kind or "None").strip(), default=default.strip(), help=(note or "").strip())
            for name, kind, default, note in DECLARATION.findall(parameters_cell["source"])
        ]


for name in ("slimfit", "typescript", "tslab"):
    papermill_translators.register(name, TypeScriptTranslator)


class TypeScriptEngine(NBClientEngine):
    """Papermill's usual engine under a name of our own: asking for it is not needed, being loaded is what counts."""
