"""The http kind: one page asked for, over whichever version of HTTP."""
