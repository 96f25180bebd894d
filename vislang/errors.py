"""The one kind of error that is meant for a user's eyes."""

from __future__ import annotations


class UserError(ValueError):
    """Something that the user can fix: the message names the file, the record or the value, and the remedy.

    The command line prints the message alone; any other exception is vislang's own fault and keeps its traceback.
    """
