#!/bin/sh
# The build of a team that has no Python but for two scripts: ONNX in, two quantized models for MNN out.
# Each line that makes a model fails the build when the model isn't what the line asks for.
set -e
mkdir -p out

# The float model in MNN's form, and one with 8-bit weights only.
pytest-mnnquant convert -f ONNX --modelFile net.onnx --MNNModel out/float.mnn
pytest-mnnquant convert -f ONNX --modelFile net.onnx --MNNModel out/w8.mnn --weightQuantBits 8

# 8-bit weights and activations, by MNN's own offline tool, on samples as it reads them.
python3 samples.py
pytest-mnnquant calibrate out/float.mnn out/int8.mnn quant.json
