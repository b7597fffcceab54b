"""The command line: invoke's parser with help, errors and exit codes people can rely on.

What differs from invoke as it comes: ``VERB --help`` shows the help of that verb also where a name is expected;
words after ``--`` keep their boundaries; no configuration file or variable of invoke's is read; every failure is one
message with a stable exit code; nothing of invoke's own command running is offered.
"""

from __future__ import annotations

import inspect
import itertools
import os
import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import NoReturn

from cli.failures import describe
from cli.invoking import Argument, Collection, Config, Exit, ParseError, Parser, ParserContext, Program
from cli.output import FORMATS, require_format
from pipeline.errors import ExitCode, PvmlabError, UsageError
from pipeline.workspace import REPOSITORY

_CORE_OPTIONS = {
    "complete", "debug", "help", "list", "list-depth", "list-format", "print-completion-script", "version", "write-pyc",
}  # fmt: skip
_FIRST_PAGE = """\
Usage: ./pvmlab VERB [OPTIONS]

  ./pvmlab up             build what is missing, start the lab and install its first machine
  ./pvmlab VERB --help    what a verb does and takes

Options:

"""
_OPTIONS = (
    ("-h, --help [VERB]", "Show this page, or the help of a verb"),
    ("-l, --list", "List the verbs"),
    ("--debug", "Show where an error comes from"),
    ("-V, --version", "Show the version"),
)


def run(namespace: Collection, argv: Sequence[str]) -> int:
    """Run the command line *argv* (its first word is the program's name) and return its exit code."""
    words, rest = _split_remainder(argv)
    debug = "--debug" in words
    wants_json = "--output=json" in words or ("--output", "json") in itertools.pairwise(words)
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGHUP, _interrupt)
        PvmlabProgram(namespace, rest).carry_out([word for word in words if word != "--debug"])
        code = ExitCode.DONE.value
    except Exit as wish:
        if wish.message:
            sys.stderr.write(f"{wish.message}\n")
        code = wish.code
    except BrokenPipeError:  # the reader has gone (| head): nobody is left to tell, and the work may be half done
        code = ExitCode.FAILED.value
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 (the last door: whatever it is becomes one message)
        more = _where_to_look(words, namespace)
        code = _report(error, debug=debug, wants_json=wants_json, more=more)
    return _flush(code)


def _where_to_look(words: Sequence[str], namespace: Collection) -> str:
    """Return what to do about a line that makes no sense, where the error does not know better."""
    verb = next((word for word in words[1:] if word in namespace.task_names), None)
    return f"./pvmlab {verb} --help shows what it takes" if verb else "./pvmlab --list shows the verbs"


def _report(error: BaseException, *, debug: bool, wants_json: bool, more: str) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, UsageError) and not error.resolution:
        error.resolution = more
    failure = describe(error)
    sys.stderr.write(failure.text)
    if wants_json:
        sys.stdout.write(failure.document)
    return failure.code.value


def _flush(code: int) -> int:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # else the interpreter tries again at its exit, and complains
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _split_remainder(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split at the first ``--``."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    return words[:end], words[end + 1 :]


class _Config(Config):
    """invoke's configuration, reduced to its defaults: no file in /etc or the home directory has a say."""

    env_prefix = "PVMLAB_INVOKE"  # type: ignore[assignment] # declared without its type

    def load_base_conf_files(self) -> None:
        """Read nothing."""


class PvmlabProgram(Program):
    """One command line.

    :ivar rest: the words after ``--``.
    """

    def __init__(self, namespace: Collection, rest: Sequence[str] = ()) -> None:
        super().__init__(
            version=version_text(), namespace=namespace, name="pvmlab", binary="./pvmlab",
            binary_names=["pvmlab", "./pvmlab"], config_class=_Config,
        )  # fmt: skip
        self.rest = tuple(rest)

    def carry_out(self, argv: Sequence[str]) -> None:
        """Parse *argv*, then run its verbs.

        :raises Exit: when help or a list was shown, or by a verb that has its own exit code.
        :raises UsageError: if the line makes no sense.
        """
        names = self.verb_names()
        try:
            self.parse(_help_first(list(argv), names))
            self._refuse_options_as_names()
            self._refuse_unknown_formats()
            self._refuse_negative_numbers()
            self.parse_cleanup()
        except ParseError as error:
            raise self._usage_error(error, names) from None
        except ValueError as error:
            raise _type_error(error, argv) from None
        self.execute()

    def parse(self, argv: list[str]) -> None:
        """Parse *argv*.

        :raises ParseError: if it makes no sense. :raises ValueError: if a value is not of its type.
        """
        self.create_config()
        self.parse_core(argv)
        # one word is a command line for the far shell; several are exactly those arguments
        self.core.remainder = self.rest[0] if len(self.rest) == 1 else shlex.join(self.rest)
        self.parse_collection()
        self.parse_tasks()

    def verb_names(self) -> list[str]:
        """Return the full names of all verbs, sorted."""
        assert self.namespace is not None  # noqa: S101 (given to the constructor)
        return sorted(self.namespace.task_names)

    def _make_parser(self) -> Parser:
        """Return the parser of verbs; called when their words are known and not yet read.

        It knows the verbs that are on the line only: invoke copies all that it knows, half the time of a start.
        """
        words, names = {*self.core.unparsed, str(self.args["help"].value)}, self.collection.task_names
        contexts = [self._context_of(name) for name, others in names.items() if words & {name, *others}]
        parser = Parser(initial=self.initial_context, contexts=contexts)
        self.core.unparsed[:] = _spread(self.core.unparsed, parser.contexts)
        return parser

    def _context_of(self, name: str) -> ParserContext:
        """Return the arguments of the verb *name*. To be asked once only: invoke takes the help texts out of it."""
        return ParserContext(
            name=name, aliases=self.collection.task_names[name], args=self.collection[name].get_arguments()
        )

    def core_args(self) -> list[Argument]:
        """Return invoke's core options that mean something here."""
        kept = [argument for argument in super().core_args() if argument.name in _CORE_OPTIONS]
        for argument in kept:
            if argument.name == "write-pyc":
                argument.default = True  # else every start compiles the lazily imported modules anew
        return kept

    def print_help(self) -> None:
        """Print the first page."""
        sys.stdout.write(_FIRST_PAGE)
        self.print_columns(_OPTIONS)
        self.list_tasks()

    def print_task_help(self, name: str) -> None:
        """Print the help of the verb *name*: what it does, its arguments and options with their defaults."""
        context = self.parser.contexts[name] if name in self.parser.contexts else self._context_of(name)
        several = list_argument(context)
        positionals = [str(argument.name) for argument in context.positional_args] + ([several] if several else [])
        words = [f"[{word.upper()} ...]" if word == several else word.upper() for word in positionals]
        usage = " ".join(["./pvmlab", name, *words, "[OPTIONS]"])
        sys.stdout.write(f"Usage: {usage}\n\n{inspect.getdoc(self.collection[name]) or ''}\n\n")
        rows = [(word.upper(), context.args[word].help or "") for word in positionals]
        rows += [
            (spec + "=STRING" * (argument.kind is list), " ".join([text, _default(argument)]).strip())
            for name, argument in sorted(context.args.items())
            for spec, text in [context.help_for(f"--{name}" if len(name) > 1 else f"-{name}")]
            if name not in positionals
        ]
        if rows:
            self.print_columns(rows)

    def task_list_opener(self, extra: str = "") -> str:  # noqa: ARG002 (invoke's signature)
        """Return the heading of the list."""
        return "Verbs"

    def _refuse_options_as_names(self) -> None:
        """invoke takes any word for a positional argument, also ``--forec``."""
        for context in self.tasks:
            for argument in context.positional_args:
                if str(argument.value).startswith("-"):
                    raise ParseError(f"No idea what {argument.value!r} is!", context)

    def _refuse_unknown_formats(self) -> None:
        """Check the word after ``--output`` before a verb does anything. :raises UsageError: if it is unknown."""
        for context in self.tasks:
            argument = context.args.get("output")
            if argument is not None and argument.default in FORMATS:
                require_format(str(argument.value))

    def _refuse_negative_numbers(self) -> None:
        """Check counts, ports and seconds before a verb does anything. :raises UsageError: if one is negative."""
        for context in self.tasks:
            for name, argument in context.args.items():
                if argument.kind is int and int(argument.value) < 0:
                    raise UsageError(f"--{name} is 0 or more, not {argument.value}")

    def _usage_error(self, error: ParseError, names: Sequence[str]) -> PvmlabError:
        verb = error.context.name if error.context is not None else None
        more = f"./pvmlab {verb} --help shows what it takes" if verb else "./pvmlab --list shows the verbs"
        text = str(error)
        if missing := re.match(r"'(.+)' did not receive required positional arguments: (.+)", text):
            wanted = missing[2].replace("'", "").upper()
            return UsageError(f"{missing[1]} wants {wanted}", resolution=more)
        if unknown := re.match(r"No idea what '(.+)' is!", text):
            word = unknown[1]
            if not word.startswith("-"):
                return _unknown_word(word, verb, names, more=more)
            flags = list(error.context.flags) if error.context is not None else []
            return UsageError(f"unknown option {word}{_near(word, flags)}", resolution=more)
        if needy := re.match(r"Flag <Argument: ([\w-]+).*> needed value", text):
            name = needy[1].replace("_", "-")
            return UsageError(f"{'--' if len(name) > 1 else '-'}{name} wants a value", resolution=more)
        return UsageError(text, resolution=more)


def version_text() -> str:
    """Return the version, from pyproject.toml (this repository is used in place, never installed)."""
    found = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    return found[1] if found else "unknown"


def _help_first(argv: list[str], names: Sequence[str]) -> list[str]:
    """Turn ``VERB ... --help`` into ``--help VERB``: invoke would take ``--help`` for a machine's name."""
    if argv[1:2] == ["help"]:
        return [argv[0], "--help", *argv[2:3]]
    verbs = [word for word in argv[1:] if word in names]
    asked = any(word in ("-h", "--help") for word in argv)
    return [argv[0], "--help", verbs[0]] if asked and verbs else argv


def list_argument(context: ParserContext) -> str | None:
    """Return the name of the argument of a verb that takes several words.

    Of several such it is the one that is the verb's first argument; if that is another, they all are options.
    """
    lists = [name for name, argument in context.args.items() if argument.kind is list]
    return lists[0] if len(lists) == 1 or (lists and lists[0] == next(iter(context.args))) else None


def _spread(argv: list[str], contexts: Mapping[str, ParserContext]) -> list[str]:
    """Turn ``build a b`` into ``build --task a --task b``: invoke knows no verb that takes any number of words.

    :raises UsageError: if the last word is an option whose value is missing.

    They end at the next verb, except that machines may be called like one: ``vm.run web1 down -- uptime``.
    """
    spread: list[str] = []
    context: ParserContext | None = None
    several: str | None = None
    is_value = may_be_alone = False
    single = 0
    for word in argv:
        if is_value and not (may_be_alone and word.startswith("-")):
            is_value = False
        elif word.startswith("-"):
            flag = context.flags.get(word) if context is not None else None
            is_value = flag is not None and flag.takes_value
            may_be_alone = flag is not None and bool(flag.optional)
        elif single:
            single -= 1
        elif word in contexts and several != "name":
            context = contexts[word]
            several = list_argument(context)
            single = len(context.positional_args)  # these words come first, one argument each
        elif several is not None:
            spread.append(f"--{several}")
        spread.append(word)
    if is_value and not may_be_alone:  # invoke says so of options that are given once, but takes the others for none
        raise UsageError(f"{argv[-1]} wants a value")
    return spread


def _default(argument: Argument) -> str:
    if argument.kind is list or argument.default in (None, False, ""):  # a list that nobody gives is empty
        return ""
    return f"(default: {argument.default})"


def _unknown_word(word: str, verb: str | None, names: Sequence[str], *, more: str) -> PvmlabError:
    if verb:
        return UsageError(f"{verb} does not take {word!r}{_near(word, names)}", resolution=more)
    return UsageError(f"there is no verb {word!r}{_near(word, names)}", resolution=more)


def _near(word: str, known: Sequence[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _type_error(error: ValueError, argv: Sequence[str]) -> UsageError:
    """Name the option whose value was not of its type (the exception only holds the value)."""
    found = re.search(r"'(.*)'\Z", str(error))
    value = found[1] if found else ""
    for option, word in itertools.pairwise(argv):
        if word == value and option.startswith("-"):
            return UsageError(f"{option} wants a whole number, not {value!r}")
        if word.startswith("-") and word.endswith(f"={value}"):
            return UsageError(f"{word.split('=')[0]} wants a whole number, not {value!r}")
    return UsageError(str(error))
