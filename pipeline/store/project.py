"""The project's own files, as far as somebody needs them who runs it elsewhere: a Kaggle kernel, a winner's package."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOP = ("requirements.txt", "run_all.sh")
ENDINGS = (".py", ".j2", ".css")


def files() -> dict[str, Path]:
    """Name (relative, with forward slashes) -> path of each, sorted; no data, no tests, nothing hidden."""
    found = [ROOT / name for name in TOP if (ROOT / name).is_file()]
    found += [path for path in (ROOT / "pipeline").rglob("*") if path.suffix in ENDINGS and path.is_file()]
    names = {path.relative_to(ROOT).as_posix(): path for path in found}
    return {name: names[name] for name in sorted(names) if not any(part.startswith(".") for part in name.split("/"))}
