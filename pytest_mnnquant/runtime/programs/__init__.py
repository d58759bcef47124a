"""The programs of child processes: a folder that runs on its own, on this host or as a copy on a target.

    python FOLDER JOB.json

Requires only MNN, numpy and Python 3.8 (`onnx_runner.py`: onnxruntime), and imports nothing from outside of the folder.
Its modules use relative imports, so that they work in the package and on a target.
"""
