"""Display runs: live on a terminal, as plain text in a pipe."""
