"""Write requirements.lock: the versions, installed here, of all that regroup-dask needs on a cluster.

    python deploy/lock.py > deploy/requirements.lock      (in an environment where the tests pass)
"""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement

EXTRAS = ("jobqueue", "s3")
# `security: true` needs it, and nothing else asks for it.
ALSO = ("cryptography",)


def closure() -> dict[str, str]:
    """Name and version of every distribution that is needed, by name."""
    found: dict[str, str] = {}
    waiting = [Requirement(text) for text in (f"regroup-dask[{','.join(EXTRAS)}]", *ALSO)]
    while waiting:
        wanted = waiting.pop()
        distribution = metadata.distribution(wanted.name)
        name = distribution.metadata["Name"].lower().replace("_", "-")
        known = name in found
        if name != "regroup-dask":
            found[name] = distribution.version
        if known and not wanted.extras:
            continue
        for text in distribution.requires or []:
            requirement = Requirement(text)
            extras = wanted.extras or {""}
            if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
                waiting.append(requirement)
    return dict(sorted(found.items()))


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in closure().items())
