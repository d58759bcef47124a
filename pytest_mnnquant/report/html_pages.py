"""The pages of the rules, rendered for the HTML report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from pytest_mnnquant.report.pages import rule_page

# One level below the headings of the report.
_LEVELS: Final = {"h2": "h3", "h3": "h4", "h4": "h5"}


@dataclass(frozen=True, slots=True)
class RulePage:
    """A rule's page: its code, its title and its text as HTML."""

    code: str
    title: str
    body: Markup


def rule_pages(codes: Sequence[str]) -> list[RulePage]:
    """The pages of these rules; rules without a page are left out."""
    texts = {code: rule_page(code) for code in codes}
    shown = [code for code in codes if texts[code]]
    return [_rendered(code, texts[code], shown) for code in shown]


def anchor(code: str) -> str:
    """The id of a rule's page in the report."""
    return f"rule-{code}"


def _rendered(code: str, text: str, shown: Sequence[str]) -> RulePage:
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    title = code
    if tokens and tokens[0].tag == "h1":
        title = tokens[1].content
        tokens = tokens[3:]
    for token in tokens:
        token.tag = _LEVELS.get(token.tag, token.tag)
        token.children = _linked(token.children, shown) if token.children else token.children
    body = parser.renderer.render(tokens, parser.options, {})
    return RulePage(code, title, Markup(body))  # html is off: HTML in a page is rendered as text


def _linked(tokens: list[Token], shown: Sequence[str]) -> list[Token]:
    """Links to pages that are in the report are kept; other links to files become text."""
    linked, is_dropped = [], False
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href") or "")
            code = target.removesuffix(".md")
            is_dropped = code not in shown and "://" not in target
            if code in shown:
                token.attrSet("href", f"#{anchor(code)}")
        if not (is_dropped and token.type in ("link_open", "link_close")):
            linked.append(token)
    return linked
