"""Everything that the commands print: results, tables and progress."""
