"""The programs of child processes: a folder that runs by itself, here or wherever it is copied to.

    python FOLDER JOB.json

Needs nothing but MNN, numpy and Python 3.8 (`onnx_runner.py`: onnxruntime), and imports nothing from outside of the
folder: its modules import each other by relative imports, so they are the same in the package and on a target.
"""
