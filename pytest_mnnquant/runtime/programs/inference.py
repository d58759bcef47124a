"""Runs a model on all samples: its outputs and its op trace."""

from __future__ import annotations

from typing import Any

from .batches import batches
from .feedback import Feedback
from .module_api import run_batches, values_of
from .output_files import OutputFiles
from .second_process import SecondProcess
from .session import Session, integer_outputs


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Outputs of a model on all samples, and the type of each operator at run time (the op trace)."""
    if job.get("engine") == "module":
        return run_module(job)
    second = SecondProcess(job, lambda samples, files: run_samples(job, samples, files)) if job.get("second") else None
    files = OutputFiles(job)
    session, trace = run_samples(job, None if second is None else second.first, files, is_traced=True)
    if second is not None and not second.add_to(files):
        run_samples(job, second.later, files)  # Its failure shows here again.
    return {"outputs": files.close(), "trace": trace, "memory_mb": session.memory_mb}


def run_samples(
    job: dict[str, Any], samples: Any, files: OutputFiles, is_traced: bool = False
) -> tuple[Session, list[Any]]:
    """Run a model on samples (their numbers; None: all) and add its outputs to files.

    Returns its session and, if `is_traced`, the op trace of the first batch.
    """
    session, integers, feedback = Session(job, job["model"]), integer_outputs(job["model"]), Feedback(job)
    trace: list[Any] = []
    for number, batch in enumerate(batches(job, samples)):
        session.feed(feedback.enter(batch))
        if is_traced and number == 0:
            trace = traced(session)
        else:
            session.run()
        outputs = session.outputs(integers)
        feedback.leave(outputs)
        files.add(outputs)
    return session, trace


def traced(session: Session) -> list[Any]:
    """Run once; the name and the type of each operator, and the widths of a resize."""
    trace: list[Any] = []
    given = 0

    def before(tensors: Any, info: Any) -> bool:
        nonlocal given
        given = _resized_width(tensors, info)
        return True

    def after(tensors: Any, info: Any) -> bool:
        made = _resized_width(tensors, info)
        trace.append([info.getName(), info.getType(), [given, made] if given and made else None])
        return True

    session.run_with_callbacks(before, after)
    return trace


def _resized_width(tensors: Any, info: Any) -> int:
    """The width of the first of a resize's tensors; 0 for other operators."""
    if not tensors or not info.getType().startswith("Interp"):
        return 0
    shape = tensors[0].getShape()
    return int(shape[-1]) if len(shape) > 2 else 0


def run_module(job: dict[str, Any]) -> dict[str, Any]:
    """The same through MNN's Module API, for models with While or If bodies; `traced`: a session gives the op trace."""
    settings = {"backend": 0, "numThread": job.get("threads", 1), "memory": int(job.get("memory", 0))}
    files, feedback = OutputFiles(job), Feedback(job)
    for results in run_batches(job, job["outputs"], settings, feedback):
        outputs = {name: values_of(results[number]) for number, name in enumerate(job["outputs"])}
        feedback.leave(outputs)
        files.add(outputs)
    files.close()
    if not job.get("traced"):
        return {"outputs": job["outputs"], "trace": None, "memory_mb": None}
    try:
        session = Session(job, job["model"])
        session.feed(next(batches(job)))
        trace = traced(session)
    except Exception:  # A session needs sizes before it runs, which operators may compute from values.
        return {"outputs": job["outputs"], "trace": None, "memory_mb": None}
    return {"outputs": job["outputs"], "trace": trace, "memory_mb": session.memory_mb}


def write_example(_job: dict[str, Any]) -> dict[str, Any]:
    """Write a model of one operator, `example.mnn`: y = 2 x, four numbers."""
    import MNN

    x = MNN.expr.placeholder([1, 4], MNN.expr.NCHW)
    y = x + x
    x.name, y.name = "x", "y"
    MNN.expr.save([y], "example.mnn")
    return {}
