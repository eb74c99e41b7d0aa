"""What a person watching a run sees: live on a terminal, plain text in a pipe."""
