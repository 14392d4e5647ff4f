"""The guards: conditions under which a due pool is not settled."""
