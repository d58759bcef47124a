"""Distributes checks to xdist's workers if some are on other hosts. Imported only with xdist."""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import parse_tx_spec_config

from pytest_mnnquant.plugin.node_ids import check_ids
from pytest_mnnquant.plugin.session import session_of

# The modes of xdist that would split a variant; `loadfile` keeps whole models together, and groups are the user's.
_PARTING: Final = ("load", "worksteal", "loadscope")


class VariantScopeScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """The checks of a variant stay together, on all targets: the host that builds a variant also checks it."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._variants: dict[str, str] = {}
        state = session_of(config)
        for source in state.sources:
            self._variants |= dict(check_ids(source, state.settings.targets, state.checks))

    def _split_scope(self, nodeid: str) -> str:
        """The scope of an item; other tests have a scope each, except with --dist=loadscope."""
        scope = super()._split_scope(nodeid) if self.config.getvalue("dist") == "loadscope" else nodeid
        return self._variants.get(nodeid, scope)


def scheduler(config: pytest.Config, log: Any) -> VariantScopeScheduling | None:
    """The scheduler of a run over several hosts; None if xdist's own is sufficient."""
    elsewhere = any(not spec.startswith("popen") for spec in parse_tx_spec_config(config))
    return VariantScopeScheduling(config, log) if elsewhere and config.getvalue("dist") in _PARTING else None
