"""Runs a file in the ONNX Runtime of whatever Python this is, from 3.7: MODEL.onnx IMAGES.npy OUTPUT.npy."""

import sys

import numpy
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
numpy.save(sys.argv[3], session.run(None, {session.get_inputs()[0].name: numpy.load(sys.argv[2])})[0])
print(onnxruntime.__version__)
