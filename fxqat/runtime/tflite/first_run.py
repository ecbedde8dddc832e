"""The first run of a .tflite file, in a process of its own.

LiteRT's kernels trust a file: sizes, types or operands that do not fit together end in a crash, and Python with it.
Here such a file ends a process that holds nothing else. This module is also that process's program, so it imports
nothing of fxqat.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

_REFERENCE = "reference"  # asks for LiteRT's reference kernels
_PATIENCE = 600  # seconds; the largest detector at 640 pixels takes some, on one slow core


def check(content: bytes, *, xnnpack: bool) -> None:
    """Run a .tflite model on zeros, twice, since the first run may damage what the second one reads.

    Args:
        content: of the file.
        xnnpack: see ``litert_session.interpreter``.

    Raises:
        RuntimeError: LiteRT refuses the file, crashes or does not end; in its words, or the signal's.
    """
    command = [sys.executable, "-P", __file__, *([] if xnnpack else [_REFERENCE])]
    environment = {**os.environ, "MALLOC_PERTURB_": "85"}  # glibc: what is read after its end, or too soon, is no zero
    try:
        done = subprocess.run(
            command, input=content, capture_output=True, env=environment, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it does not end within {_PATIENCE} s") from error
    if done.returncode < 0:
        raise RuntimeError(f"it crashes ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise RuntimeError(done.stdout.decode(errors="replace").strip() or f"it ends with code {done.returncode}")


def _main() -> int:
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_REF if _REFERENCE in sys.argv[1:] else OpResolverType.AUTO
    try:
        opened = Interpreter(
            model_content=sys.stdin.buffer.read(), experimental_op_resolver_type=resolver, num_threads=1
        )
        opened.allocate_tensors()
        for _ in range(2):
            for source in opened.get_input_details():
                opened.set_tensor(source["index"], np.zeros(source["shape"], source["dtype"]))
            opened.invoke()
            for made in opened.get_output_details():
                opened.get_tensor(made["index"])
    except Exception as error:
        print(str(error).strip() or type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
