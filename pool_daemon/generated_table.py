"""Tables that a command writes into a Markdown file, between two marks, beside text that is written by hand."""

from pathlib import Path
from typing import Final

from pool_daemon.errors import ConfigurationError

BEGIN: Final = "<!-- generated: begin -->\n"
END: Final = "<!-- generated: end -->\n"


def write_table(path: Path, table: str) -> None:
    """Replace the text between the marks of a file; a missing file is created, with the table alone.

    Raises ConfigurationError if the file has no marks or cannot be written: other text is never overwritten.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.exists() else BEGIN + END
        before, begin, rest = text.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not begin or not end:
            raise ConfigurationError(f"{path}: has no lines {BEGIN.strip()!r} and {END.strip()!r} to write between")
        path.write_text(f"{before}{BEGIN}\n{table.strip()}\n\n{END}{after}", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from error


def read_table(path: Path) -> str:
    """Return the text between the marks of a file; "" if it has none, or does not exist."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return text.partition(BEGIN)[2].partition(END)[0].strip()
