"""The stages that are cheap to redo: data, scoring, tables and figures."""
