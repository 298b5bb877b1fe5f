"""The page a person reads."""
from pathlib import Path


def write_page(folder: Path) -> Path:
    """Write the page."""
    path = folder / "report.html"
    path.write_text("<html></html>")
    return path
