"""Completion scripts for bash, zsh and fish, made of the places of a command line. Pure.

Each script holds the words as tables, so that completing a command or an option starts no process;
for names it asks `skep __complete`. bash and zsh share tables and the walk along the words.
"""

from __future__ import annotations

from collections.abc import Sequence

from skep.cli.completion import Place

_WALK = r"""
# Walks along the words before the cursor. Afterwards _skep_path is the command, _skep_number how
# many arguments it has so far, _skep_pending the spec of the value that an option waits for,
# _skep_reach names the cluster, and _skep_first is the first argument. Fails after "--": what
# follows is not skep's.
_skep_walk() {
    _skep_path="" _skep_number=0 _skep_pending="" _skep_reach="" _skep_first=""
    local word
    for word in "$@"; do
        if [ "$word" = "=" ]; then
            continue
        elif [ -n "$_skep_pending" ]; then
            _skep_note "$_skep_pending" "$word"
            _skep_pending=""
        elif [ "$word" = "--" ]; then
            return 1
        elif [ "${word#-}" != "$word" ]; then
            _skep_option "$_skep_path" "${word%%=*}"
            if [ "${word#*=}" != "$word" ]; then
                _skep_note "$_skep_spec" "${word#*=}"
            else
                _skep_pending=$_skep_spec
            fi
        elif _skep_alias "$_skep_path" "$word" && [ -n "$_skep_spec" ]; then
            _skep_path="$_skep_path $_skep_spec"
        elif _skep_is_command "$_skep_path" "$word"; then
            _skep_path="${_skep_path:+$_skep_path }$word"
        else
            _skep_number=$((_skep_number + 1))
            _skep_first=${_skep_first:-$word}
        fi
    done
}

_skep_note() {
    case "$1" in
    @clusters) _skep_reach="--cluster=$2" ;;
    @contexts) _skep_reach="--context=$2" ;;
    @managers) _skep_reach="--managers-address=$2" ;;
    esac
}

# The words that a spec stands for, one a line. Files are the shell's own business.
_skep_words() {
    local part
    for part in $2; do
        case "$part" in
        / | - | @managers) ;;
        @revisions)
            [ -z "$_skep_first" ] ||
                "$1" __complete revisions ${_skep_reach:+"$_skep_reach"} "$_skep_first" 2>/dev/null
            ;;
        @*) "$1" __complete "${part#@}" ${_skep_reach:+"$_skep_reach"} 2>/dev/null ;;
        *) printf '%s\n' "$part" ;;
        esac
    done
}

_skep_is_command() {
    local name
    _skep_commands "$1"
    for name in $_skep_spec; do
        [ "$name" = "$2" ] && return 0
    done
    return 1
}

# What the word at the cursor may be, as a spec.
_skep_expected() {
    if [ -n "$_skep_pending" ]; then
        _skep_spec=$_skep_pending
    elif [ "${1#-}" != "$1" ]; then
        _skep_options "$_skep_path"
    else
        _skep_commands "$_skep_path"
        [ -n "$_skep_spec" ] || _skep_argument "$_skep_path" "$_skep_number"
    fi
}
"""

_BASH = r"""
_skep() {
    local IFS=$' \t\n' _skep_path _skep_number _skep_pending _skep_reach _skep_first _skep_spec
    local word=${COMP_WORDS[COMP_CWORD]} start="" name
    COMPREPLY=()
    if ! _skep_walk "${COMP_WORDS[@]:1:COMP_CWORD-1}"; then
        compopt -o default 2>/dev/null
        return
    fi
    [ "$word" = "=" ] && word=""
    if [ -z "$_skep_pending" ] && [[ $word == --*=* ]]; then
        # Where "=" doesn't part words, option and value are one.
        start=${word%%=*}=
        _skep_option "$_skep_path" "${word%%=*}"
        _skep_pending=$_skep_spec
        word=${word#*=}
    fi
    _skep_expected "$word"
    if [[ " $_skep_spec " == *" / "* ]]; then
        compopt -o default 2>/dev/null
        return
    fi
    while read -r name; do
        [[ $name == "$word"* ]] && COMPREPLY+=("$start$name")
    done < <(_skep_words "${COMP_WORDS[0]}" "$_skep_spec")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}

complete -F _skep skep
"""

_ZSH = r"""
_skep() {
    local _skep_path _skep_number _skep_pending _skep_reach _skep_first _skep_spec
    local -a names
    # The look-up is apart, since its options would break what belongs to zsh; so is this, since
    # zsh takes back at the end of a function what that has said of the word.
    _skep_look && compset -P '*='
    if [[ " $_skep_spec " == *" / "* ]]; then
        _files
    elif [[ $_skep_spec == @scale ]]; then
        compadd -S '' -a names
    else
        compadd -a names
    fi
}

# Finds the names for the word; succeeds if that is an option with "=", and the names its values.
_skep_look() {
    emulate -L zsh
    setopt sh_word_split
    local word="${words[CURRENT]}"
    integer is_parted=0
    if ! _skep_walk "${(@)words[2,CURRENT-1]}"; then
        _skep_spec=/
        return 1
    fi
    if [[ -z $_skep_pending && $word == --*=* ]]; then
        _skep_option "$_skep_path" "${word%%=*}"
        _skep_pending=$_skep_spec
        word=${word#*=}
        is_parted=1
    fi
    _skep_expected "$word"
    names=("${(@f)$(_skep_words "${words[1]}" "$_skep_spec")}")
    names=(${names:#})
    (( is_parted ))
}

if [[ ${funcstack[1]} == _skep ]]; then
    _skep "$@"
else
    compdef _skep skep
fi
"""

_FISH = r"""
function __skep_note -S
    switch $argv[1]
        case @clusters
            set reach "--cluster=$argv[2]"
        case @contexts
            set reach "--context=$argv[2]"
        case @managers
            set reach "--managers-address=$argv[2]"
    end
end

function __skep_words -a command spec start word first
    for part in (string split -n ' ' -- $spec)
        switch $part
            case - @managers
            case /
                __fish_complete_path "$word"
            case @revisions
                test -n "$first"; or continue
                for name in ($command __complete revisions $argv[6..] $first 2>/dev/null)
                    echo $start$name
                end
            case '@*'
                for name in ($command __complete (string sub -s 2 -- $part) $argv[6..] 2>/dev/null)
                    echo $start$name
                end
            case '*'
                echo $start$part
        end
    end
end

function __skep_complete
    set -l tokens (commandline -opc)
    set -l word (commandline -ct)
    set -l command $tokens[1]
    set -l path ''
    set -l number 0
    set -l pending ''
    set -l reach
    set -l first ''
    for token in $tokens[2..]
        if test -n "$pending"
            __skep_note $pending $token
            set pending ''
        else if test "$token" = --
            return
        else if string match -qr '^-' -- $token
            set -l parts (string split -m 1 = -- $token)
            set -l spec (__skep_option "$path" $parts[1])
            if set -q parts[2]
                __skep_note "$spec" $parts[2]
            else
                set pending "$spec"
            end
        else if set -l named (__skep_alias "$path" $token); and test -n "$named"
            set path (string trim -- "$path $named")
        else if contains -- $token (__skep_commands "$path" | string replace -r '\t.*' '')
            set path (string trim -- "$path $token")
        else
            set number (math $number + 1)
            test -n "$first"; or set first $token
        end
    end
    set -l start ''
    if test -z "$pending"; and string match -qr '^--.*=' -- $word
        set -l parts (string split -m 1 = -- $word)
        set pending (__skep_option "$path" $parts[1])
        set start "$parts[1]="
        set word $parts[2]
    end
    if test -n "$pending"
        __skep_words $command "$pending" "$start" "$word" "$first" $reach
    else if string match -qr '^-' -- $word
        __skep_options "$path"
    else
        __skep_commands "$path"
        set -l spec (__skep_argument "$path" $number; or echo -)
        __skep_words $command $spec '' "$word" "$first" $reach
    end
end

complete -c skep -f -a '(__skep_complete)'
"""


def bash(places: Sequence[Place]) -> str:
    """The script for bash."""
    return f"# Completion of skep for bash.\n\n{_tables(places)}{_WALK}{_BASH}"


def zsh(places: Sequence[Place]) -> str:
    """The script for zsh."""
    return f"#compdef skep\n# Completion of skep for zsh.\n\n{_tables(places)}{_WALK}{_ZSH}"


def fish(places: Sequence[Place]) -> str:
    """The script for fish."""
    commands, options, values, arguments, aliases = [], [], [], [], []
    for place in places:
        for alias, name in place.aliases:
            mark = _quoted(f"{place.path}:{alias}")
            aliases.append(f"        case {mark}\n            echo {_quoted(name)}\n")
        head = f"        case {_quoted(place.path)}\n"
        body = "".join(_fish_line(name, text) for name, text in place.commands)
        if body:
            commands.append(head + body)
        body = "".join(_fish_line(flag, o.text) for o in place.options for flag in o.flags)
        options.append(head + body)
        for option in place.options:
            if option.spec:
                marks = " ".join(_quoted(f"{place.path}:{flag}") for flag in option.flags)
                values.append(f"        case {marks}\n            echo {_quoted(option.spec)}\n")
        for mark, spec in _marks(place):
            arguments.append(f"        case {_quoted(mark)}\n            echo {_quoted(spec)}\n")
    return (
        "\n".join(
            [
                "# Completion of skep for fish.\n",
                _fish_function("__skep_commands", '"$argv[1]"', commands),
                _fish_function("__skep_alias", '"$argv[1]:$argv[2]"', aliases),
                _fish_function("__skep_options", '"$argv[1]"', options),
                _fish_function("__skep_option", '"$argv[1]:$argv[2]"', values),
                _fish_function("__skep_argument", '"$argv[1]:$argv[2]"', arguments),
            ]
        )
        + _FISH
    )


def _tables(places: Sequence[Place]) -> str:
    commands, options, values, arguments, aliases = [], [], [], [], []
    for place in places:
        aliases += [_row(f"{place.path}:{alias}", name) for alias, name in place.aliases]
        names = " ".join(name for name, _ in place.commands)
        if names:
            commands.append(_row(place.path, names))
        flags = " ".join(flag for option in place.options for flag in option.flags)
        options.append(_row(place.path, flags))
        for option in place.options:
            if option.spec:
                marks = " | ".join(_quoted(f"{place.path}:{flag}") for flag in option.flags)
                values.append(f"    {marks}) _skep_spec={_quoted(option.spec)} ;;\n")
        for mark, spec in _marks(place):
            quoted = f"{_quoted(mark[:-1])}*" if mark.endswith("*") else _quoted(mark)
            arguments.append(f"    {quoted}) _skep_spec={_quoted(spec)} ;;\n")
    return "\n".join(
        [
            _function("_skep_commands", '"$1"', commands),
            _function("_skep_alias", '"$1:$2"', aliases),
            _function("_skep_options", '"$1"', options),
            _function("_skep_option", '"$1:$2"', values),
            _function("_skep_argument", '"$1:$2"', arguments),
        ]
    )


def _marks(place: Place) -> list[tuple[str, str]]:
    """Patterns of "path:number", and what stands there."""
    marks = [(f"{place.path}:{number}", spec) for number, spec in enumerate(place.arguments)]
    if place.is_many:
        marks.append((f"{place.path}:*", place.arguments[-1]))
    return marks


def _function(name: str, what: str, rows: Sequence[str]) -> str:
    return f'{name}() {{\n    _skep_spec=""\n    case {what} in\n{"".join(rows)}    esac\n}}\n'


def _row(path: str, spec: str) -> str:
    return f"    {_quoted(path)}) _skep_spec={_quoted(spec)} ;;\n"


def _fish_function(name: str, what: str, rows: Sequence[str]) -> str:
    return f"function {name}\n    switch {what}\n{''.join(rows)}    end\nend\n"


def _fish_line(word: str, text: str) -> str:
    return f"            printf '%s\\t%s\\n' {_quoted(word)} {_quoted(text)}\n"


def _quoted(text: str) -> str:
    """As one word of any of the three shells. Quotes and backslashes, which each of them takes
    in its own way, occur in help texts alone, and are left out there."""
    kept = text.replace("'", "").replace("\\", "")
    return f"'{kept}'"
