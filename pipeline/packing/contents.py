"""All files of a package: the project's code, the runs as train wrote them, and the pages."""

from pathlib import Path

from pipeline.packing import bundle, pages, settings
from pipeline.packing.lineage import Made
from pipeline.packing.pages import Subject
from pipeline.store import manifest, project, sidecar
from pipeline.store.runs import EXECUTION

# Empty folders, for what the package is given and what it makes.
FOLDERS = tuple(settings.DEFAULTS[key] for key in ("RAW_DATA_DIR", "CLEAN_DATA_DIR", "SUBMISSION_DIR"))


def members(subject: Subject) -> dict[str, bytes | Path]:
    """Name -> content, sorted.

    Raises:
        BadData: a run's recipe is of another version of the pipeline.
    """
    found: dict[str, bytes | Path] = dict(pages.render(subject))
    # The project's requirements.txt and run_all.sh are for its own folders; here pages stand for them.
    found |= {name: path for name, path in project.files().items() if name.startswith("pipeline/")}
    for made in subject.made:
        found |= {f"{settings.DEFAULTS['MODEL_DIR']}/{made.name}/{name}": path for name, path in _run(made).items()}
    found["directory_structure.txt"] = b""
    lines = bundle.tree(found, FOLDERS)
    found["directory_structure.txt"] = "\n".join([*lines, ""]).encode()
    return {name: found[name] for name in sorted(found)}


def _run(made: Made) -> dict[str, Path]:
    """A run's files, without its checkpoint and its events, and the pseudo-labels that it learned."""
    found = {name: made.run.folder / name for name in (*made.run.manifest.files, manifest.NAME)}
    if (made.run.folder / EXECUTION).is_file():
        found[EXECUTION] = made.run.folder / EXECUTION
    if made.labels is not None and made.labels.csv is not None:
        found[made.labels.place] = made.labels.csv
        found[str(sidecar.path_of(Path(made.labels.place)))] = sidecar.path_of(made.labels.csv)
    return found
