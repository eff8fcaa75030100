"""Request ids and what their first requests made (AIP-155): one table for each kind of resource."""

from datetime import datetime

from sqlalchemy import Table, delete, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from config_svc.ports.claim import Claim


async def take_claim(
    connection: AsyncConnection, claims: Table, project: str, claim: Claim, *, expired_before: datetime
) -> Claim | None:
    """Does what `ports.store.Transaction.claim` promises, in a table whose last id column is the resource's."""
    same = (claims.c.project == project, claims.c.request_id == claim.request_id)
    await connection.execute(delete(claims).where(*same, claims.c.create_time < expired_before))
    # Waits for a concurrent holder; when that one rolls back, the claim is ours.
    taken = await connection.execute(
        upsert(claims)
        .values(
            project=project,
            request_id=claim.request_id,
            fingerprint=claim.fingerprint,
            uid=claim.uid,
            resource_id=claim.resource_id,
            create_time=claim.create_time,
        )
        .on_conflict_do_nothing()
        .returning(claims.c.uid)
    )
    if taken.one_or_none() is not None:
        return None
    row = (await connection.execute(select(claims).where(*same))).one()
    return Claim(row.request_id, row.fingerprint, row.uid, row.resource_id, row.create_time)
