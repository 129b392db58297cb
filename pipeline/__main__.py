"""`python -m pipeline` prints the map: there is no command for the whole, that is run_all.sh.

`python -m pipeline completion bash` prints what completes the commands in a shell: `eval "$(...)"`.  It asks
the stage itself (pipeline.cli.run, with click's protocol), so that nothing here knows an option.
"""

import re
import sys
from collections.abc import Sequence
from typing import Literal

import click

import pipeline
from pipeline import cli

ZSH = "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"
# What completed python before goes on doing so for everything that is not the pipeline's.
SCRIPT = r"""
_pipeline_before=
{ _comp_load -- python || _completion_loader python; } >/dev/null 2>&1 # some are loaded at the first TAB
if [[ $(complete -p python 2>/dev/null) =~ ' -F '([^ ]+) && ${BASH_REMATCH[1]} != _pipeline_complete ]]; then
    _pipeline_before=${BASH_REMATCH[1]}
fi
_pipeline_complete() {
    [[ -z ${ZSH_VERSION:-} ]] || emulate -L ksh
    local words=("${COMP_WORDS[@]}") kind value
    COMPREPLY=()
    if [[ ${words[1]} == -m && $COMP_CWORD == 2 && (pipeline == "$2"* || $2 == pipeline*) ]]; then
        COMPREPLY=($(compgen -W "@STAGES@" -- "$2"))
    elif [[ ${words[1]} == -m && ${words[2]} == pipeline* && $COMP_CWORD -gt 2 ]]; then
        while IFS=, read -r kind value; do
            case $kind in
                plain) COMPREPLY+=("$value") ;;
                dir) compopt -o dirnames 2>/dev/null ;;
                file) compopt -o default 2>/dev/null ;;
            esac
        done < <(COMP_WORDS="${words[*]:2}" COMP_CWORD=$((COMP_CWORD - 2)) @VARIABLE@=bash_complete \
            "$1" -m "${words[2]}" 2>/dev/null)
    elif [[ -n $_pipeline_before ]]; then
        "$_pipeline_before" "$@"
    else
        compopt -o default 2>/dev/null
    fi
}
_pipeline_complete_run_all() {
    COMPREPLY=($(compgen -W "$("$1" --help | grep -oE '^ +(-h, )?--[a-z]+' | grep -oE -e '--.*')" -- "$2"))
}
complete -F _pipeline_complete python python3
complete -o default -F _pipeline_complete_run_all run_all.sh
"""


@cli.stage_command("""
python -m pipeline                               the map
eval "$(python -m pipeline completion bash)"     then TAB completes stages, options and their values
""")
@click.argument("what", type=click.Choice(["completion"]), required=False)
@click.argument("shell", type=click.Choice(["bash", "zsh"]), required=False)
def command(what: Literal["completion"] | None, shell: Literal["bash", "zsh"] | None) -> None:
    """Print the map of the pipeline, or what completes its commands in a shell."""
    if what is None:
        cli.log(pipeline.__doc__ or "")
        return
    stages = " ".join(dict.fromkeys(re.findall(r"python -m (pipeline\.\w+)", pipeline.__doc__ or "")))
    script = SCRIPT.replace("@STAGES@", stages).replace("@VARIABLE@", cli.COMPLETE)
    cli.log((ZSH if shell == "zsh" else "") + script.lstrip())


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return cli.run(command, "", argv)


if __name__ == "__main__":
    sys.exit(main())
