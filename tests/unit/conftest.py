from types import SimpleNamespace

import pytest

from o1_reason import resolve


@pytest.fixture
def installed(monkeypatch):
    """Installs adapters by name, in place of all others; an exception in place of one is raised when it loads."""

    def install(**given):
        def point(name, what):
            def load():
                if isinstance(what, Exception):
                    raise what
                return what

            return SimpleNamespace(name=name, value=f"package_of_{name}", load=load)

        monkeypatch.setattr(resolve, "entry_points", lambda group: [point(*item) for item in given.items()])

    return install
