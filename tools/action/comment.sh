#!/usr/bin/env bash
# Posts the Markdown report to the pull request, or updates the comment of an earlier run. Reads PULL_REQUEST and GH_TOKEN.
set -euo pipefail
[ -s mnnquant-report.md ] || { echo "no report to post"; exit 0; }
marker="<!-- pytest-mnnquant -->"
{ echo "$marker"; head -c 60000 mnnquant-report.md; } >mnnquant-comment.md
comment=$(gh api --paginate "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" \
    --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1)
if [ -n "$comment" ]; then
    gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$comment" -F body=@mnnquant-comment.md >/dev/null
else
    gh api --method POST "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" -F body=@mnnquant-comment.md >/dev/null
fi
rm -f mnnquant-comment.md
