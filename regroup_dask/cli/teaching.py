"""Commands whose help teaches: options under titles, examples that say what they are for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

PLAIN_TITLE = "Options"
WIDEST = 28


class Example(NamedTuple):
    """A command as it is typed, and what it is for."""

    command: str
    purpose: str

    @property
    def arguments(self) -> list[str]:
        """What the command gets, without the name of the program."""
        return shlex.split(self.command)[1:]


class TitledOption(click.Option):
    """An option that knows under which title of the help it stands."""

    def __init__(self, *names: Any, title: str = PLAIN_TITLE, **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self.title = title


def titled(title: str, *names: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Like `click.option`, under a title of the help."""
    return click.option(*names, cls=TitledOption, title=title, **attributes)


class TeachingCommand(click.Command):
    """A command with examples, whose options are grouped by their titles in the order in which these first appear.

    Parameters
    ----------
    examples
        Commands to begin with; they are shown last, where the eye is when the help has scrolled past.
    """

    def __init__(self, *given: Any, examples: Sequence[Example | tuple[str, str]] = (), **attributes: Any) -> None:
        super().__init__(*given, **attributes)
        self.examples = tuple(Example(*example) for example in examples)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, a section for each title."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                title = getattr(parameter, "title", PLAIN_TITLE)
                sections.setdefault(title, []).append(record)
        plain = sections.pop(PLAIN_TITLE, None)
        if plain is not None:
            sections["Other options" if sections else PLAIN_TITLE] = plain
        # One width for all sections, so that the eye runs down one column.
        width = max((len(name) for records in sections.values() for name, _ in records if len(name) <= WIDEST), default=0)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", meaning) for name, meaning in records], col_max=WIDEST)

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what else is to be said."""
        if self.examples:
            with formatter.section("Examples"):
                for number, example in enumerate(self.examples):
                    if number:
                        formatter.write_paragraph()
                    # Not wrapped: a command is copied as one line.
                    for line in (f"# {example.purpose}", example.command):
                        formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
        super().format_epilog(context, formatter)
