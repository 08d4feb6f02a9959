"""The command ``colorize-archive``. Typer and Rich are only here."""
