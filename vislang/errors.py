"""The error that is shown to users."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can fix. The message names the file, the record or the value, and the remedy.

    The command line prints only the message. Any other exception is a bug in vislang and keeps its traceback.
    """
