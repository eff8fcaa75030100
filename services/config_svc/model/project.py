"""The project: the isolation boundary that everything belongs to."""

from dataclasses import dataclass
from datetime import datetime

from config_svc.model import rules
from config_svc.model.rules import Json
from contract.fields import check_resource_id
from servicekit.errors import Violations


@dataclass(frozen=True, slots=True)
class Project:
    """One life of a project: its id can be made again after it is gone, as another project with another uid."""

    id: str
    uid: str
    display_name: str
    create_time: datetime
    delete_time: datetime | None = None
    """Set while it is being deleted."""

    def check(self, found: Violations, path: str) -> None:
        """Reports every broken rule under `path`."""
        check_resource_id(found, f"{path}.id", self.id)
        rules.check_text(found, f"{path}.display_name", self.display_name, maximum=200)

    @property
    def audited(self) -> dict[str, Json]:
        """What the audit log shows of it."""
        return {"id": self.id, "uid": self.uid, "display_name": self.display_name}
