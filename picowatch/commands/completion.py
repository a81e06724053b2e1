"""`picowatch completion`: the script that makes a shell complete picowatch's commands."""

from argparse import Namespace
from collections.abc import Callable

from argcomplete.shell_integration import shellcode

from picowatch.errors import SUCCEEDED
from picowatch.settings import Settings


def main(options: Namespace, load: Callable[[], Settings]) -> int:
    print(shellcode(["picowatch"], shell=options.shell))
    return SUCCEEDED
