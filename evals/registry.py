"""Evaluation tasks by name.

    @register_task("reversal")
    class Reversal(Task):
        "Words to spell backwards."
        def __init__(self, num_problems: int = 200, letters: Annotated[int, "of a word"] = 5): …

A task is a class, or a function that returns a `Task`. Its parameters are its options on the
command line (`dlmdecode eval reversal --letters 7`): annotations say what they take, and a text
among them is their help. `num_problems` and `chat` are no options but the `--limit` and `--chat` of
every task. A package can offer tasks by entry points.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import entry_points
from typing import Annotated, Any, TypeVar, get_args, get_origin

from dlmdecode.checks import OneOf, alternatives, conform, require
from dlmdecode.evals.task import Task
from dlmdecode.options import parse

ENTRY_POINTS = "dlmdecode.tasks"
SHARED = ("num_problems", "chat")  # parameters that are no options of their own
COMMANDS = ("frontier", "report", "tune")  # what else may follow `dlmdecode eval`
T = TypeVar("T", bound=Callable[..., Task])


@dataclass(frozen=True)
class RegisteredTask:
    """A task of the registry: what makes it, and its options on the command line."""

    name: str
    make: Callable[..., Task]

    @property
    def help(self) -> str:
        return (inspect.getdoc(self.make) or "").split("\n\n")[0].replace("\n", " ")

    @cached_property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make, eval_str=True).parameters

    def hint(self, name: str) -> Any:
        """The annotation of a parameter; None where it has none."""
        annotation = self.parameters[name].annotation
        return None if annotation is inspect.Parameter.empty else annotation

    @property
    def options(self) -> list[str]:
        return [name for name in self.parameters if name not in SHARED]

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Give a command the task's options."""
        for name in self.options:
            hint, default = self.hint(name), self.parameters[name].default
            flag, help = f"--{name.replace('_', '-')}", text_of(hint).replace("%", "%%")
            if default is False:
                parser.add_argument(flag, action="store_true", help=help)
                continue
            required = default is inspect.Parameter.empty
            words = [word for limit in limits(hint) for word in limit.words]
            parser.add_argument(
                flag,
                type=partial(parse, hint=hint),
                default=default,
                required=required,
                metavar=f"{{{','.join(words)}}}" if words else None,
                help=help if required or default is None else f"{help} ({default})",
            )

    def build(self, given: Mapping[str, Any], limit: int | None = None, chat: bool = False) -> Task:
        """The task; one that is made in any size has `limit` problems if that is given.

        Raises:
            ValueError: an option that is not what its annotation says, or that the task lacks.
        """
        values = {name: conform(name, given[name], self.hint(name)) for name in self.options}
        has_form = "chat" in self.parameters
        require(has_form or not chat, "chat", chat, f"{self.name} has no chat form: leave it out")
        if has_form:
            values["chat"] = chat
        if limit is not None and "num_problems" in self.parameters:
            values["num_problems"] = limit
        return self.make(**values)


def text_of(hint: Any) -> str:
    """The text in an annotation; empty if there is none."""
    extra = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((text for text in extra if isinstance(text, str)), "")


def limits(hint: Any) -> list[OneOf]:
    return [limit for _, limit in alternatives(hint) if isinstance(limit, OneOf)]


REGISTRY: dict[str, RegisteredTask] = {}


def register_task(name: str) -> Callable[[T], T]:
    """Make a task available under `name`, which a class gets as its `name`, too.

    Raises:
        ValueError: the name is taken, or is no identifier.
    """

    def register(make: T) -> T:
        require(name.isidentifier(), "name", name, "use letters, digits and underscores")
        free = name not in REGISTRY and name not in COMMANDS
        require(free, "name", name, "a task or a command of this name is there already")
        if isinstance(make, type) and issubclass(make, Task):
            make.name = name
        REGISTRY[name] = RegisteredTask(name, make)
        return make

    return register


def registered_tasks() -> list[RegisteredTask]:
    """All tasks by name: the built-in ones and those of installed packages."""
    from dlmdecode.evals import arithmetic_task, functions_task, gsm8k, humaneval  # noqa: F401

    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name not in REGISTRY:
            entry.load()
    return [REGISTRY[name] for name in sorted(REGISTRY)]
