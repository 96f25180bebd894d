"""One package per system; parts that several systems share are in :mod:`vislang.nn`."""
