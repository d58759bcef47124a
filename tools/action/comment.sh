#!/usr/bin/env bash
# Posts the Markdown report to the pull request, or updates the comment of an earlier run. Reads PULL_REQUEST and GH_TOKEN.
# A comment that can't be posted (pull requests of forks have a read-only token) is a warning: the verdict is the gate's.
set -euo pipefail
[ -s mnnquant-report.md ] || { echo "no report to post"; exit 0; }
marker="<!-- pytest-mnnquant -->"
{ echo "$marker"; cat mnnquant-report.md; } >mnnquant-comment.md
post() {
    local comment
    comment=$(gh api --paginate "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" \
        --jq ".[] | select(.body | startswith(\"$marker\")) | .id") || return
    comment=${comment%%$'\n'*}
    if [ -n "$comment" ]; then
        gh api --method PATCH "repos/$GITHUB_REPOSITORY/issues/comments/$comment" -F body=@mnnquant-comment.md >/dev/null
    else
        gh api --method POST "repos/$GITHUB_REPOSITORY/issues/$PULL_REQUEST/comments" -F body=@mnnquant-comment.md >/dev/null
    fi
}
post || echo "::warning title=pytest-mnnquant::the report was not posted; the job requires the permission pull-requests: write"
rm -f mnnquant-comment.md
