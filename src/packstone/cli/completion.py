"""`packstone completion`: the script that lets a shell complete commands, snapshots and paths."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from packstone.cli import render


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the script that completes commands, snapshots and paths inside them.

    \b
    packstone completion bash > ~/.local/share/bash-completion/completions/packstone
    packstone completion zsh > ~/.zfunc/_packstone
    packstone completion fish > ~/.config/fish/completions/packstone.fish
    """
    from packstone.cli.commands import COMPLETE, packstone

    found = get_completion_class(shell)
    assert found is not None
    if shell == "bash":
        # Else bash would see three words in SNAPSHOT:PATH.
        render.line("COMP_WORDBREAKS=${COMP_WORDBREAKS//:}")
    render.line(found(packstone, {}, "packstone", COMPLETE).source().rstrip("\n"))
    return 0
