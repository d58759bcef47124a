"""Chat templates are rendered with the functions of transformers; what depends on the clock is not compared."""

from __future__ import annotations

import pytest

from pytest_mnnquant.sources.encodings import render

pytest.importorskip("jinja2")

_DATE = """
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{{- "Today Date: " + date_string + messages[0].content }}"""


def test_a_date_is_not_compared() -> None:
    assert render(_DATE, {}, ["hi"]) is None
    assert render("{{ strftime_now('%Y') }}", {}, ["hi"]) is None
    assert render(_DATE, {"date_string": "1 May 2025, "}, ["hi"]) == ("Today Date: 1 May 2025, hi",)
    assert render("{{ strftime_now is defined }}", {}, ["hi"]) == ("True",)


def test_json_is_that_of_transformers() -> None:
    assert render("{{ messages[0].content | tojson }}", {}, ["<a> & '\u4f60'"]) == ("\"<a> & '\u4f60'\"",)
    assert render("{{ {'b': 1, 'a': [2]} | tojson }}", {}, ["hi"]) == ('{"b": 1, "a": [2]}',)
    assert render("{{ {'b': 1, 'a': 2} | tojson(indent=1, sort_keys=true) }}", {}, ["hi"]) == (
        '{\n "a": 2,\n "b": 1\n}',
    )


def test_templates_that_fail_are_not_compared() -> None:
    assert render("{{ raise_exception('no') }}", {}, ["hi"]) is None
    assert render("{{ unknown() }}", {}, ["hi"]) is None
