"""Write requirements.lock: the versions, installed here, of all that regroup-dask needs on a cluster.

    python deploy/lock.py > deploy/requirements.lock      (in an environment where the tests pass)
"""

from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

EXTRAS = ("jobqueue", "gateway", "s3")


def wanted() -> list[Requirement]:
    """What this checkout asks for."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    more = [text for extra in EXTRAS for text in project["optional-dependencies"][extra]]
    return [Requirement(text) for text in (*project["dependencies"], *more)]


def closure() -> dict[str, str]:
    """Name and version of every distribution that is needed, by name."""
    found: dict[str, str] = {}
    waiting = wanted()
    while waiting:
        asked = waiting.pop()
        distribution = metadata.distribution(asked.name)
        name = distribution.metadata["Name"].lower().replace("_", "-")
        known = name in found
        found[name] = distribution.version
        if known and not asked.extras:
            continue
        for text in distribution.requires or []:
            requirement = Requirement(text)
            extras = asked.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in closure().items())
