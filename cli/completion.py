"""``./pvmlab completion SHELL``: prints a script that has the shell ask :mod:`cli.complete` after each TAB."""

from __future__ import annotations

import sys

from pipeline.errors import UsageError

# The words are taken from the line as it is, not as bash cuts it up at : and =, which our words hold.
_BASH = r"""# bash completion of pvmlab. In ~/.bashrc:  source <(/path/to/pvmlab completion bash)
_pvmlab() {
    local line=${COMP_LINE:0:COMP_POINT} program=${1//\\/} words word cut offer files=()
    # without -r: a backslash keeps a blank in its word
    read -a words <<<"${line#"$1"}"
    [[ $line == *[[:space:]] ]] && words+=("")
    word=${words[-1]} cut=""
    # bash puts back only what follows the last of these
    [[ $COMP_WORDBREAKS == *:* && $word == *:* ]] && cut=${word%"${word##*:}"}
    [[ $COMP_WORDBREAKS == *=* && ${word#"$cut"} == *=* ]] && cut=${word%"${word##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r offer _; do
        if [[ $offer == :files ]]; then
            while IFS= read -r offer; do files+=("$offer"); done < <(compgen -f -- "${word#"$cut"}")
        else
            COMPREPLY+=("${offer#"$cut"}")
        fi
    done < <("${program/#\~/$HOME}" __complete pvmlab "${words[@]}" 2>/dev/null)
    if (( ! ${#COMPREPLY[@]} )); then
        COMPREPLY=("${files[@]}")
        compopt -o filenames 2>/dev/null
    else # not as names of files: bash would put a backslash before the colon after a machine's name
        for offer in "${files[@]}"; do COMPREPLY+=("$(printf %q "$offer")"); done
        [[ ${COMPREPLY[0]} == *: ]] && compopt -o nospace 2>/dev/null
    fi
}
complete -F _pvmlab pvmlab
"""
_ZSH = r"""#compdef pvmlab
# zsh completion of pvmlab. In ~/.zshrc, after compinit:  source <(/path/to/pvmlab completion zsh)
_pvmlab() {
    local line offer meaning files=0 program=${(Q)words[1]}
    local -a offers open
    while IFS=$'\t' read -r offer meaning; do
        case $offer in
            :files) files=1 ;;
            *:) open+=("${offer//:/\\:}:$meaning") ;; # a path follows
            *) offers+=("${offer//:/\\:}:$meaning") ;;
        esac
    done < <(${~program} __complete "${(@Q)words[1,CURRENT]}" 2>/dev/null)
    (( $#offers )) && _describe 'pvmlab' offers
    (( $#open )) && _describe 'pvmlab' open -S ''
    if (( files )); then
        [[ $PREFIX == -*=* ]] && compset -P 1 '*='
        _files
    fi
}
compdef _pvmlab pvmlab
"""
_FISH = r"""# fish completion of pvmlab. In ~/.config/fish/config.fish:  /path/to/pvmlab completion fish | source
function __pvmlab_complete
    set -l token (commandline -ct)
    set -l words (commandline -opc) $token
    set -l program (string replace -r '^~' $HOME -- $words[1])
    for offer in ($program __complete $words 2>/dev/null)
        if test "$offer" = :files
            set -l option (string match -r -- '^-[^=]*=' "$token")
            for path in (__fish_complete_path (string replace -r -- '^-[^=]*=' '' "$token"))
                echo "$option$path"
            end
        else
            echo $offer
        end
    end
end
complete -c pvmlab -f -a '(__pvmlab_complete)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


def print_script(shell: str) -> None:
    """Print the script for *shell*. :raises UsageError: if there is none."""
    if shell not in _SCRIPTS:
        raise UsageError(f"there is no completion for {shell!r}", resolution=f"use one of: {', '.join(_SCRIPTS)}")
    sys.stdout.write(_SCRIPTS[shell])
