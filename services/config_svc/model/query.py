"""Queries of list calls."""

import enum
import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from config_svc.model.agent import AgentConfig
from config_svc.model.filter import Filter
from config_svc.model.tool_server import ToolServer
from servicekit.errors import Violations

SortValue: TypeAlias = str | datetime

MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50


class OrderField(enum.Enum):
    """The field by which a list is ordered; ties are broken by uid."""

    ID = "id"
    CREATE_TIME = "create_time"
    UPDATE_TIME = "update_time"


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a list."""

    field: OrderField = OrderField.ID
    descending: bool = False


BY_ID = Order()


@dataclass(frozen=True, slots=True)
class After:
    """The position after which a page begins."""

    value: SortValue
    uid: str


@dataclass(frozen=True, slots=True)
class AgentQuery:
    """A query for agent configs of a project. `now` determines which are purged."""

    project: str
    now: datetime
    order: Order = Order()
    show_deleted: bool = False
    filter: Filter | None = None


@dataclass(frozen=True, slots=True)
class ToolServerQuery:
    """A query for tool servers of a project."""

    project: str
    order: Order = BY_ID
    filter: Filter | None = None


def sort_value(one: AgentConfig | ToolServer, order: Order) -> SortValue:
    """Returns what `order` sorts an agent config, or a tool server, by."""
    match order.field:
        case OrderField.ID:
            return one.id
        case OrderField.CREATE_TIME:
            return one.create_time
        case OrderField.UPDATE_TIME:
            return one.update_time


def place_of(one: AgentConfig | ToolServer, order: Order) -> tuple[SortValue, str]:
    """Returns the position of an agent config, or a tool server, in a list of that order."""
    return sort_value(one, order), one.uid


def place_types(order: Order) -> tuple[type[str | datetime], type[uuid.UUID]]:
    """Returns the types of the members of a position in that order."""
    return (str if order.field is OrderField.ID else datetime), uuid.UUID


def parse_order(found: Violations, text: str) -> Order:
    """Returns the order that `order_by` asks for (AIP-132); reports an unsupported one."""
    words = text.split()
    if not words:
        return Order()
    names = {member.value: member for member in OrderField}
    if words[0] in names and words[1:] in ([], ["desc"]):
        return Order(names[words[0]], descending=len(words) == 2)
    found.add("order_by", "must be id, create_time or update_time, with ' desc' to turn it round")
    return Order()
