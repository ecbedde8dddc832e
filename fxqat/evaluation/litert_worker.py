"""A process that loads one .tflite model into LiteRT and runs it on request; see timing_worker.py.

LiteRT's options are its defaults, XNNPACK among them, apart from the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_edge_litert.interpreter import Interpreter

from fxqat.evaluation.timing_worker import Run, check_sides, pixels, serve


def load(model: str, threads: int, size: Sequence[int]) -> tuple[Run, Sequence[int]]:
    """A run copies the input and the outputs, as a program would."""
    interpreter = Interpreter(model_path=model, num_threads=threads)
    interpreter.allocate_tensors()
    (source,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    shape = [int(length) for length in source["shape"]]
    check_sides(shape, size, channels_last=shape[-1] == 3)
    images = pixels(shape, source["dtype"])

    def run() -> None:
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        for output in outputs:
            interpreter.get_tensor(output["index"])

    return run, shape


if __name__ == "__main__":
    serve(load)
