"""The lock names what is installed."""

import re
import tomllib

from tests.shell import ROOT


def test_every_dependency_is_in_the_lock_with_hashes() -> None:
    """A dependency that is added is locked, too."""
    lock = (ROOT / "requirements.lock").read_text()
    blocks = re.findall(r"^([a-z0-9-]+)==\S+(.*?)(?=^[a-z]|\Z)", lock, re.MULTILINE | re.DOTALL)
    locked = dict(blocks)
    assert all("--hash=sha256:" in rest for rest in locked.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["tansu"]]
    for requirement in wanted:
        assert re.match(r"[a-z0-9-]+", requirement)[0] in locked, requirement
