"""Templates that other packages ship: the entry points of the group `parley.templates`.

A plug-in runs with all the rights of the gateway. If one can't be loaded the gateway does not start, since without it
every turn of its agents would be refused.
"""

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from chat_gateway.agents.template import Placeholders, Template
from servicekit.errors import StartupError

GROUP = "parley.templates"

_ATTRIBUTES: Mapping[str, tuple[type[Any], ...]] = {
    "id": (str,),
    "version": (str,),
    "description": (str,),
    "parameters_schema": (Mapping,),
    "placeholders": (Placeholders, type(None)),
}


def all_templates(own: Iterable[Template], points: Iterable[EntryPoint] | None = None) -> list[Template]:
    """Returns the gateway's own templates and those of installed packages, in order of the entry points' names.

    An entry point names a template, or a class or function that makes one when called without arguments. `points` are
    those of this environment unless given. Raises `StartupError` that names the package and what is wrong with it, also
    where two packages ship the same id.
    """
    templates = list(own)
    owners = {template.id: "chat_gateway" for template in templates}
    found = entry_points(group=GROUP) if points is None else points
    for point in sorted(found, key=lambda point: (point.name, point.value)):
        package = point.dist.name if point.dist is not None else point.value
        template = _loaded(point, package)
        if owners.setdefault(template.id, package) != package:
            raise StartupError(f"template {template.id!r} is shipped by {owners[template.id]} and by {package}")
        templates.append(template)
    return templates


def _loaded(point: EntryPoint, package: str) -> Template:
    where = f"template {point.name!r} of {package} ({point.value})"
    try:
        template = point.load()
        if isinstance(template, type) or not hasattr(template, "build"):
            template = template()
    except Exception as error:
        raise StartupError(f"{where} can't be loaded: {type(error).__name__}: {error}") from error
    for name, kinds in _ATTRIBUTES.items():
        if not isinstance(getattr(template, name, ...), kinds):
            raise StartupError(f"{where} has no attribute {name!r} of the kind that a template has")
    if not callable(getattr(template, "build", None)):
        raise StartupError(f"{where} has no method 'build'")
    return cast(Template, template)
