"""One file a system; what two systems share lives in :mod:`vislang.nn`."""
