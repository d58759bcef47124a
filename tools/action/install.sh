#!/usr/bin/env bash
# Installs pytest-mnnquant for the composite action. Reads EXTRAS, TORCH and VERSION.
set -euo pipefail
extras=${EXTRAS:+[$EXTRAS]}
if [ -n "${TORCH:-}" ]; then
    python -m pip install --quiet "torch==$TORCH"
fi
case "${VERSION:-}" in
    "") python -m pip install --quiet "pytest-mnnquant$extras" ;;
    */* | .) python -m pip install --quiet "$VERSION$extras" ;;
    *) python -m pip install --quiet "pytest-mnnquant$extras==$VERSION" ;;
esac
