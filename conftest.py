"""For the project's own tests: pytester, which pytest loads only where the top-level conftest asks for it."""

pytest_plugins = ["pytester"]
