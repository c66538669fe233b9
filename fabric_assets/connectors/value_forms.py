"""The versions of the form in which stored values and column names are written.

A stream keeps the version with which its table was made, so a new form never meets an old one in one column. A connector or a
shaper that changes a form asks `memory.value_forms >= 2` for it, and writes the earlier form below that.
"""

# Tables that were made before versions were recorded: UUIDs as bytes, arrays as the source spells them, `x` for names in other scripts.
FIRST = 1
# New tables, and tables that a full refresh or `fabric migrate-values` has made anew.
CURRENT = 2
