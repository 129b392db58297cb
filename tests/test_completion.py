"""What TAB completes, asked of a real bash."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, clean_environment, here

# As readline does it: the words so far, the function, and what it found.
ASK = """
_before() {{ COMPREPLY=(from before); }}
complete -F _before python
eval "$(<{script})"
while read -r -a COMP_WORDS; do
    [[ ${{COMP_WORDS[-1]}} != _ ]] || COMP_WORDS[-1]=
    COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMPREPLY=()
    function=$(complete -p "${{COMP_WORDS[0]##*/}}" | sed 's/.*-F \\([^ ]*\\).*/\\1/')
    "$function" "${{COMP_WORDS[0]}}" "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD - 1]}}" </dev/null
    echo "${{COMPREPLY[*]}}"
done
"""


def completed(tmp_path: Path, *lines: str) -> list[list[str]]:
    """What each line can go on with; "_" at its end is an empty word."""
    script = tmp_path / "completion"
    printed = here("__main__", "completion", "bash", cwd=ROOT)
    assert printed.returncode == 0
    script.write_text(printed.stdout)
    environ = {**clean_environment(), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    result = subprocess.run(
        ["bash", "-c", ASK.format(script=script)], input="".join(f"{line}\n" for line in lines),
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert result.stderr == ""
    return [line.split() for line in result.stdout.splitlines()]


def test_stages_options_and_values_are_completed(tmp_path: Path) -> None:
    stages, one, options, choices, later, ours, script = completed(
        tmp_path,
        "python -m _",
        "python -m pipeline.tr",
        "python -m pipeline.train --l",
        "python -m pipeline.train --preset _",
        "python -m pipeline.predict --run A B --tta flip-",
        "python -m pipeline _",
        "./run_all.sh --re",
    )
    assert {"pipeline.download", "pipeline.rehearsal"} <= set(stages) and one == ["pipeline.train"]
    assert options == ["--learning-rate", "--label-smoothing"]
    assert choices == ["paper", "fast", "best", "rehearsal"]
    assert later == ["flip-shift"]
    assert ours == ["completion"]
    assert script == ["--rehearsal"]


def test_what_is_not_the_pipelines_is_completed_as_before(tmp_path: Path) -> None:
    script, module, file = completed(tmp_path, "python script", "python -m json.t", "python -m pipeline.submit --csv s")
    assert script == module == ["from", "before"]
    assert file == []  # and readline completes a file's name


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_what_is_printed_is_of_one_piece(shell: str) -> None:
    printed = here("__main__", "completion", shell, cwd=ROOT).stdout
    subprocess.run(["bash", "-n"], input=printed, text=True, check=True)
    assert "@" not in printed.replace("[@]", "").replace('"$@"', "")
    assert ("bashcompinit" in printed) is (shell == "zsh")


def test_alone_it_prints_the_map() -> None:
    printed = here("__main__", cwd=ROOT)
    assert printed.returncode == 0 and "python -m pipeline.download" in printed.stdout
    assert here("__main__", "nonsense", cwd=ROOT).returncode == 2
