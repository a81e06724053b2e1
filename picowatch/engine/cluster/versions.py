"""Whether a node has the versions that make the same pixels."""

import platform

from picowatch.engine.versions import versions


def differences(there: dict[str, str]) -> str:
    """What a node's versions (`host.introduce`) lack of ours, in words; "" if they agree.

    What stands behind "+" is the build (torch 2.13.0+cpu): machines may differ in it. Of Python's
    the first two numbers count, which decide what can be sent.
    """
    if "picowatch" not in there:
        return "picowatch is not installed there, or not where Ray runs"
    ours = versions() | {"python": platform.python_version()}
    found = (
        f"{name} is {there.get(name, 'missing')} there and {version} here"
        for name, version in ours.items()
        if _counted(name, there.get(name, "")) != _counted(name, version)
    )
    return ", ".join(found)


def _counted(name: str, version: str) -> str:
    if name == "python":
        return ".".join(version.split(".")[:2])
    return version.partition("+")[0]
