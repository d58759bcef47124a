"""A hash of what decides what a PyTorch model computes: weights, attributes, functions, and the code of its modules.

Nothing of the model is called or printed: `__repr__` and `state_dict` of user classes may raise. A value that can't be
read makes the digest unique, so that nothing is taken from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_mnnquant.sources.code_digest import project_folders
from pytest_mnnquant.sources.value_digest import ValueDigest

if TYPE_CHECKING:
    import torch


def digest(model: torch.nn.Module) -> str:
    """The digest of a model. It is the same in train and in eval mode."""
    values = ValueDigest(project_folders(type(module).__module__ for module in model.modules()))
    for name, module in model.named_modules():
        values.add_text(name)
        values.add(module)
    values.add(_state(model))
    values.add_pending()
    return values.hexdigest()


def _state(model: torch.nn.Module) -> Any:
    """The state dictionary, which quantized modules need: they keep no parameters. None if it can't be made."""
    try:
        return model.state_dict()
    except (Exception, SystemExit):
        return None
