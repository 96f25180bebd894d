"""The error that is shown to users."""

from __future__ import annotations

import importlib.util


class UserError(ValueError):
    """A mistake that the user can fix. The message names the file, the record or the value, and the remedy.

    The command line prints only the message. Any other exception is a bug in vislang and keeps its traceback.
    """


def needs(package: str, extra: str, purpose: str) -> None:
    """Raise an error if an optional package is not installed.

    Args:
        package: import name of the package.
        extra: the extra of vislang that installs it.
        purpose: what needs it, for the message.

    Raises:
        UserError: the package is missing; the message has the command that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{purpose} needs {package}. Run: pip install 'vislang[{extra}]'")
