"""The verbs of the settings, ``config.*``."""

from __future__ import annotations

from invoke import Collection, Context, task

from cli.verbs.words import OUTPUT


@task(name="show", auto_shortflags=False, help={"output": OUTPUT})
def config_show(_c: Context, output: str = "table") -> None:
    """Show every setting: its value, and where that came from (environment, a file, the default)."""
    from cli.config_show import show_settings

    show_settings(output=output)


collection = Collection(config_show)
