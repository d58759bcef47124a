"""Runs several pipelines of one file in one process, which spares the import of torch for each.

A program in the place of `pipeline_child.py`: the pipelines named in `NAMES`, or in the name that was asked for
(`first,second`), each in a folder of its own. Their results are left in `results.json`.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path[:] = job["path"]
    from pytest_mnnquant.quantize import pipeline_child

    pipeline_child.silence()
    results = {}
    for task in os.environ["PIPELINES"].split(","):
        name, mode = task.split(":")
        outdir = Path(job["outdir"]) / name
        outdir.mkdir(parents=True)
        pipeline = {**job["pipeline"], "attribute": name}
        results[name] = pipeline_child.run({**job, "pipeline": pipeline, "outdir": str(outdir), "mode": mode})
    Path(job["outdir"], "results.json").write_text(json.dumps(results), encoding="utf-8")
    Path(sys.argv[1]).with_name("result.json").write_text(json.dumps({"raised": "see results.json"}), encoding="utf-8")


if __name__ == "__main__":
    main()
