"""What PyPI shows of the package: links that work outside of the repository."""

from __future__ import annotations

import re
from importlib.metadata import metadata

NAME = "pytest-mnnquant"


def test_all_links_of_the_description_are_absolute() -> None:
    text = metadata(NAME).get_payload()  # type: ignore[attr-defined]
    links = re.findall(r"\]\(([^)]*)\)|srcset=\"([^\"]*)\"|src=\"([^\"]*)\"", text)
    places = [place for found in links for place in found if place]
    assert len(places) > 20
    assert [place for place in places if not place.startswith(("https://", "#"))] == []


def test_the_page_names_the_project_s_places() -> None:
    places = dict(entry.split(", ") for entry in metadata(NAME).get_all("Project-URL") or [])
    assert places.keys() >= {"Homepage", "Documentation", "Changelog", "Issues"}
    assert all(place.startswith("https://") for place in places.values())
