import subprocess
import sys


def test_declarations_import_no_heavy_library() -> None:
    """The runner imports every stage, format, benchmark and combiner to plan; none of them loads numpy, torch or llama.cpp by that."""
    code = (
        "import sys\nfrom stages import plugins\n"
        "for kind in ('stages', 'formats', 'benchmarks', 'combiners'):\n    [plugins.load(kind, name) for name in plugins.names(kind)]\n"
        "print(sorted({'numpy', 'torch', 'transformers', 'tokenizers', 'cyllama', 'gguf', 'safetensors'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
