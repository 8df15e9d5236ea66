"""Prints a shell completion script for commands and flags.

fer-jax completion bash > ~/.local/share/bash-completion/completions/fer-jax
eval "$(fer-jax completion zsh)"     # in ~/.zshrc, after compinit
"""

from fer_jax.commands import common

# Reads commands and flags from --help at completion time, so they are always current.
_BASH = r"""_fer_jax() {
  local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]}
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    COMPREPLY=($(compgen -W "$(fer-jax --help | grep -oE '^  [a-z-]+') --help --version" -- "$word"))
  elif [[ $word == -* ]]; then
    local flags
    flags=$(fer-jax "$command" --help 2>/dev/null | grep -oE '^ +(-[a-zA-Z], )?--[A-Za-z_-]+')
    flags=$(grep -oE -- '--.*' <<< "$flags")
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
  fi
}
complete -o default -F _fer_jax fer-jax
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    parser.add_argument("shell", choices=("bash", "zsh"), help="the shell")
    args = parser.parse_args(argv)
    print((_ZSH if args.shell == "zsh" else "") + _BASH, end="")
    return 0
