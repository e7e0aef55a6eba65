"""jupyter_kernel_test, the Jupyter project's conformance suite, with every sample supplied.

Prints the counts as JSON on the last line. Exit code 1 when a test fails or is skipped.
"""

import json
import sys
import unittest

import jupyter_kernel_test as suite

KERNEL = "globalThis as any)[Symbol.for('slimfit.kernel')]"


class SlimFitKernel(suite.KernelTests):
    kernel_name = "slimfit"
    language_name = "typescript"
    file_extension = ".ts"
    code_hello_world = "console.log('hello, world')"
    code_stderr = "console.error('oops')"
    code_page_something = "Math.max?"
    code_generate_error = "throw new Error('as asked')"
    code_execute_result = [
        {"code": "6 * 7", "result": "42"},
        {"code": "'text'", "result": "text"},
        {"code": "[1, 2].map((x) => 2 * x)", "result": "[ 2, 4 ]"},
        {"code": "await Promise.resolve({ a: 1n })", "result": "{ a: 1n }"},
        {"code": "aq.table({ n: [1] })", "mime": "text/html"},
    ]
    code_display_data = [
        {"code": f"({KERNEL}.display({{ 'text/html': '<b>x</b>' }});", "mime": "text/html"},
        {"code": "await slimfit.display(aq.table({ n: [1] }));", "mime": "text/html"},
    ]
    code_history_pattern = "6 *"
    supported_history_operations = ("tail", "range", "search")
    code_inspect_sample = "Math.max"
    code_clear_output = f"console.log('gone'); ({KERNEL}.clearOutput(true);"
    completion_samples = [
        {"text": "Math.ab", "matches": {"abs"}},
        {"text": "'é😀'.toUpperCa", "matches": {"toUpperCase"}},
        {"text": "slimfit.glueTa", "matches": {"glueTask"}},
        {"text": "const quiteNew = 1; quiteN", "matches": {"quiteNew"}},
    ]
    complete_code_samples = ["1", "const x = 1;", "function f(x: number) {\n  return 2 * x;\n}", "for await (const x of []) {}", "Math.max?", "", "// only a comment"]
    incomplete_code_samples = ["function f(", "const s = `a", "if (true) {", "/* comment", "const o = { a: 1,", "Math.max(1,"]
    invalid_code_samples = ["a b c", "const = 1", "if (x) } {", "'open string\n1"]


class SlimFitWelcome(suite.IopubWelcomeTests):
    kernel_name = "slimfit"
    support_iopub_welcome = True


if __name__ == "__main__":
    loader = unittest.defaultTestLoader
    tests = unittest.TestSuite(loader.loadTestsFromTestCase(c) for c in (SlimFitKernel, SlimFitWelcome))
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(tests)
    bad = len(result.failures) + len(result.errors)
    print(json.dumps({"ran": result.testsRun, "passed": result.testsRun - bad - len(result.skipped), "skipped": len(result.skipped), "failed": bad}))
    sys.exit(0 if bad == 0 and not result.skipped else 1)
