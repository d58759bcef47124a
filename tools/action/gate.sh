#!/usr/bin/env bash
# Runs the gate for the composite action. Reads ARGUMENTS (quotes group words; nothing in them is run) and writes `status` to GITHUB_OUTPUT.
set -uo pipefail
if ! words=$(xargs -n 1 printf '%s\n' <<<"${ARGUMENTS:?}"); then
    echo "::error title=pytest-mnnquant::arguments: a quote is not closed"
    echo "status=4" >>"$GITHUB_OUTPUT"
    exit 4
fi
mapfile -t arguments <<<"$words"
rm -f mnnquant-report.md mnnquant-report.json mnnquant-report.html
reports=(--mnn-report=mnnquant-report.md --mnn-report=mnnquant-report.json)
if python -c "import jinja2, markdown_it, plotly" 2>/dev/null; then
    reports+=(--mnn-report=mnnquant-report.html)
fi
python -m pytest --mnn-cache-dir=.mnnquant "${reports[@]}" "${arguments[@]}"
status=$?
echo "status=$status" >>"$GITHUB_OUTPUT"
exit 0
