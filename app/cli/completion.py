"""`completion`: a script that makes the shell complete `python -m app` with the Tab key."""

import click

from app.cli.command import Command

COMPLETE_VARIABLE = "_NEXUS_COMPLETE"
"""By this variable the script asks the command line what may stand next (click's protocol)."""

# The program is `python`, so each script looks whether `-m app` follows; it asks the very interpreter that was typed, and
# leaves every other use of python to what completed it before, or to file names.
_BASH = """\
_nexus_app_completion() {
    local IFS=$'\\n' answer line
    [[ ${COMP_WORDS[1]} == -m && ${COMP_WORDS[2]} == app && $COMP_CWORD -ge 3 ]] || return 0
    answer=$(COMP_WORDS="${COMP_WORDS[*]:2}" COMP_CWORD=$((COMP_CWORD - 2)) _NEXUS_COMPLETE=bash_complete \\
        "${1/#\\~\\//$HOME/}" -m app 2>/dev/null)
    for line in $answer; do
        # Where a file is wanted nothing is said, and the shell completes file names.
        [[ $line == plain,* ]] && COMPREPLY+=("${line#plain,}")
    done
    return 0
}
complete -o nosort -o bashdefault -o default -F _nexus_app_completion python python3
"""
_ZSH = """\
_nexus_app_completion() {
    if [[ ${words[2]} != -m || ${words[3]} != app ]] || (( CURRENT < 4 )); then
        (( $+functions[_python] )) && _python "$@" || _files
        return
    fi
    local -a answer described
    local kind word help
    answer=("${(@f)$(COMP_WORDS="${words[3,-1]}" COMP_CWORD=$((CURRENT - 3)) _NEXUS_COMPLETE=zsh_complete \\
        ${~words[1]} -m app 2>/dev/null)}")
    for kind word help in $answer; do
        case $kind in
            plain) [[ $help == _ ]] && compadd -U -V unsorted -- "$word" || described+=("$word:$help") ;;
            dir) _path_files -/ ;;
            file) _path_files -f ;;
        esac
    done
    (( $#described )) && _describe -V command described -U
    return 0
}
compdef _nexus_app_completion python python3
"""
_FISH = """\
function __nexus_app_words
    set -l words (commandline -opc)
    test (count $words) -ge 3; and test "$words[2]" = -m; and test "$words[3]" = app
end
function __nexus_app_completion
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    for line in (env COMP_WORDS="$words[3..-1] $current" COMP_CWORD="$current" _NEXUS_COMPLETE=fish_complete $words[1] -m app 2>/dev/null)
        set -l part (string split -m 1 , -- $line)
        switch $part[1]
            case plain
                echo $part[2]
            case dir
                __fish_complete_directories $current
            case file
                __fish_complete_path $current
        end
    end
end
complete --no-files --command python --command python3 --condition __nexus_app_words --arguments '(__nexus_app_completion)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


@click.command(
    cls=Command,
    examples=["completion bash >> ~/.bashrc", "completion zsh >> ~/.zshrc", "completion fish > ~/.config/fish/conf.d/nexus.fish"],
    without_json="it prints a script",
)
@click.argument("shell", type=click.Choice(list(_SCRIPTS)), help="Which shell.")
def completion(shell: str) -> None:
    """Print a script with which the shell completes commands, options and files after `python -m app`.

    It takes effect in the next shell. In zsh the line must stand after `compinit`. Other uses of python are completed as before, in bash
    with file names.
    """
    click.echo(_SCRIPTS[shell], nl=False)
