"""`parley agents apply` and `parley agents export`: agents in files, so that they can be kept in git."""

import difflib
import enum
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from contract.reasons import Reason
from parley_cli.api import Api, ApiError, path_of
from parley_cli.commands.confirm import Yes, confirm_deletion
from parley_cli.commands.output import print_json
from parley_cli.commands.project import Project
from parley_cli.declared.agent_file import AgentFile, Kind, Problem, agent_files, as_yaml, exported
from parley_cli.declared.plan import (
    DEFAULT_OWNER,
    OWNER_LABEL,
    Action,
    FieldChange,
    Plan,
    Step,
    carry_out,
    make_plan,
)
from parley_cli.errors import LocalError
from parley_cli.terminal import echo, echo_error

CHANGES_EXIT_CODE = 3

_SIGNS = {Action.CREATE: "+", Action.UPDATE: "~", Action.DELETE: "-"}
_DONE = {Action.CREATE: "created", Action.UPDATE: "updated", Action.DELETE: "deleted"}


class Output(enum.StrEnum):
    """Output format."""

    TEXT = "text"
    JSON = "json"


class Format(enum.StrEnum):
    """How to write agents."""

    YAML = "yaml"
    JSON = "json"


def apply(
    files: Annotated[
        Path,
        typer.Option(
            "--file", "-f", exists=True, help="A folder of YAML files with one agent or tool server each, or one file."
        ),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate and show the plan without changing anything.")
    ] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help=f"With --dry-run: {CHANGES_EXIT_CODE} when there is something to do.")
    ] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete this owner's agents that no file declares.")] = False,
    yes: Yes = False,
    owner: Annotated[
        str, typer.Option("--owner", help=f"Whose agents these are (label {OWNER_LABEL}); one for each folder.")
    ] = DEFAULT_OWNER,
    comment: Annotated[str, typer.Option("--comment", help="A comment on each new revision.")] = "",
    output: Annotated[
        Output, typer.Option("--output", "-o", help="Output format of the plan and the result.")
    ] = Output.TEXT,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --output json.")] = False,
    project: Project = None,
) -> None:
    """Apply the agents and tool servers declared in files. Changes nothing unless everything is valid."""
    output = Output.JSON if as_json else output
    if prune and files.is_file():
        raise LocalError("--prune needs a folder: one file does not declare all agents")
    declared, problems = agent_files(files)
    with Api(project=project) as api:
        plan, found = make_plan(api, declared, owner, prune=prune)
        require_good(problems + found)
        if output is Output.TEXT:
            _show(plan)
        if dry_run:
            if output is Output.JSON:
                print_json(_as_json(plan, {}))
            raise typer.Exit(CHANGES_EXIT_CODE if exit_code and plan.changes else 0)
        if deletions := plan.of(Action.DELETE):
            confirm_deletion(_deletions(deletions), yes=yes)
        _carry_out(api, plan, comment, output)


def export(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[AGENT]...", help="Ids of agents; default: all.")] = None,
    directory: Annotated[
        Path | None, typer.Option("--directory", "-d", file_okay=False, help="Folder to write one file per agent to.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="Output format.")] = Format.YAML,
    project: Project = None,
) -> None:
    """Write agents as files for `apply`; without ids, all agents and tool servers. Existing files keep comments."""
    with Api(project=project) as api:
        named = [api.get(path_of("agents", one)) for one in ids or ()]
        agents = named or api.list_all("/v1/agents")
        servers = [] if named else api.list_all("/v1/tool_servers")
    contents = [exported(one, frozenset({OWNER_LABEL})) for one in [*servers, *agents]]
    if directory is not None:
        _write(contents, directory)
    elif output is Format.JSON:
        print_json(contents)
    else:
        echo("---\n".join(as_yaml(content) for content in contents), end="")


def _deletions(steps: list[Step]) -> str:
    agents = sum(step.kind is Kind.AGENT for step in steps)
    servers = len(steps) - agents
    parts = [f"{_count(agents, 'agent')}, with all sessions,"] if agents else []
    return " and ".join([*parts, *([_count(servers, "tool server")] if servers else [])])


def carry_out_plan(api: Api, plan: Plan, comment: str, output: Output, *, dry_run: bool) -> None:
    """Shows a plan that deletes nothing, and makes it unless only that was asked for."""
    if output is Output.TEXT:
        _show(plan)
    if not dry_run:
        _carry_out(api, plan, comment, output)
    elif output is Output.JSON:
        print_json(_as_json(plan, {}))


def require_good(problems: list[Problem]) -> None:
    """Raises LocalError, after a line for each problem, where there is one."""
    if not problems:
        return
    for problem in sorted(problems, key=lambda one: (str(one.file), one.line or 0, one.field)):
        echo_error(problem)
    files = len({problem.file for problem in problems})
    raise LocalError(f"{_count(len(problems), 'problem')} in {_count(files, 'file')}: nothing was changed")


def _carry_out(api: Api, plan: Plan, comment: str, output: Output) -> None:
    """Carries out the plan as far as it goes: an agent that was changed meanwhile does not stop the others."""
    outcomes: dict[str, str] = {}
    failed = 0
    for step in plan.changes:
        try:
            agent = carry_out(api, step, comment)
            revision = f" (revision {agent['revision']})" if agent else ""
            outcomes[step.name] = f"{_DONE[step.action]}{revision}"
        except ApiError as error:
            failed += 1
            outcomes[step.name] = f"failed: {error}"
            echo_error(f"parley: {step.name}: {_advice(error)}")
        else:
            if output is Output.TEXT:
                echo(f"{_DONE[step.action]} {step.name}{revision}")
    if output is Output.JSON:
        print_json(_as_json(plan, outcomes))
    if failed:
        raise LocalError(f"{failed} of {_count(len(plan.changes), 'change')} failed: run apply again")


_CHANGED = (
    Reason.AGENT_ALREADY_EXISTS,
    Reason.AGENT_NOT_FOUND,
    Reason.TOOL_SERVER_ALREADY_EXISTS,
    Reason.TOOL_SERVER_NOT_FOUND,
)


def _advice(error: ApiError) -> str:
    if error.code.upper() in (Reason.ETAG_MISMATCH, *_CHANGED):
        return f"was changed since the plan was made, and is left as it is ({error.code})"
    return str(error)


def _show(plan: Plan) -> None:
    width = max((len(step.name) for step in plan.changes), default=0)
    for step in plan.changes:
        where = f"  ({step.file.path})" if step.file is not None else ""
        echo(f"{_SIGNS[step.action]} {step.action.value} {step.name:<{width}}{where}".rstrip())
        for change in step.changes:
            for line in change_lines(change):
                echo(f"    {line}")
    counts = ", ".join(f"{len(plan.of(action))} to {action.value}" for action in _SIGNS)
    echo(f"Plan: {counts}, {len(plan.of(Action.UNCHANGED))} unchanged.")


def change_lines(change: FieldChange) -> list[str]:
    """Returns a change as lines; text of several lines as a diff."""
    before, after = change.before, change.after
    if isinstance(before or "", str) and isinstance(after or "", str) and "\n" in f"{before or ''}{after or ''}":
        diff = difflib.unified_diff((before or "").splitlines(), (after or "").splitlines(), lineterm="", n=2)
        return [f"{change.path}:", *(f"  {line}" for line in list(diff)[2:])]
    return [f"{change.path}: {_value(before)} -> {_value(after)}"]


def _value(value: Any) -> str:
    return "(not set)" if value in (None, "", [], {}) else json.dumps(value, ensure_ascii=False)


def _as_json(plan: Plan, outcomes: dict[str, str]) -> dict[str, Any]:
    steps: dict[Kind, list[dict[str, Any]]] = {kind: [] for kind in Kind}
    for step in plan.steps:
        changes = [{"path": one.path, "from": one.before, "to": one.after} for one in step.changes]
        shown: dict[str, Any] = {"id": step.id, "action": step.action.value}
        if step.file is not None:
            shown["file"] = str(step.file.path)
        shown["changes"] = changes
        if step.name in outcomes:
            shown["outcome"] = outcomes[step.name]
        steps[step.kind].append(shown)
    return {
        **{kind.value: found for kind, found in steps.items()},
        **{action.value: len(plan.of(action)) for action in Action},
    }


def _write(contents: list[dict[str, Any]], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    files, problems = agent_files(directory)
    require_good(problems)
    known: dict[tuple[Kind, str], AgentFile] = {(file.kind, file.id): file for file in files}
    for content in contents:
        kind = Kind.TOOL_SERVER if content.get("kind") == "tool_server" else Kind.AGENT
        file = known.get((kind, content["id"]))
        place = directory / kind.value if kind is Kind.TOOL_SERVER else directory
        path = place / f"{content['id']}.yaml" if file is None else file.path
        if file is None:
            place.mkdir(exist_ok=True)
            path.write_text(as_yaml(content), encoding="utf-8")
            echo(f"wrote {path}")
        else:
            echo(f"{'updated' if file.update(content) else 'unchanged'} {path}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
