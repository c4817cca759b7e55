"""The service that one writes first: FastAPI and SQLAlchemy as their tutorials recommend, for `alternatives.py`.

The same work as a bootstrap: recognise an API key by its digest, read who that is, what it is bound to and which
components it may be, insert a durable row, answer the packet. No idempotency key, no deadline, no edge guard, no rate
limit: it does less than MetaGate, never more. An asynchronous engine with its default pool, one session per request by
dependency injection, ORM classes, one joined query, models for what comes in and goes out.

Run as a program it serves: `DATABASE_URL`, `PORT`, `WORKERS`.
"""

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field
from sqlalchemy import ARRAY, DateTime, ForeignKey, String, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

engine = create_async_engine(os.environ["DATABASE_URL"])  # noqa: TID251
Session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()


class PlainTable(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB, list[str]: ARRAY(String)}  # noqa: RUF012 - SQLAlchemy's form


class PlainPacket(PlainTable):
    __tablename__ = "packet"
    digest: Mapped[str] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any]]


class PlainBinding(PlainTable):
    __tablename__ = "binding"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    components: Mapped[list[str]]
    sla_seconds: Mapped[int]
    digest: Mapped[str] = mapped_column(ForeignKey("packet.digest"))
    packet: Mapped[PlainPacket] = relationship()


class PlainPrincipal(PlainTable):
    __tablename__ = "principal"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    name: Mapped[str]
    key_sha256: Mapped[str] = mapped_column(unique=True)
    suspended: Mapped[bool] = mapped_column(default=False)
    binding_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("binding.id"))
    binding: Mapped[PlainBinding] = relationship()


class PlainStartup(PlainTable):
    __tablename__ = "startup"
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    principal_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("principal.id"))
    component_key: Mapped[str]
    status: Mapped[str] = mapped_column(default="OPEN")
    opened_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    deadline_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    digest: Mapped[str]


class BootBody(BaseModel):
    component_key: str = Field(min_length=1, max_length=253)


class BootAnswer(BaseModel):
    startup_id: uuid.UUID
    principal_key: str
    component_key: str
    issued_at: datetime
    deadline_at: datetime
    digest: str
    packet: dict[str, Any]


async def session() -> AsyncIterator[AsyncSession]:
    async with Session() as opened:
        yield opened


async def principal(
    database: Annotated[AsyncSession, Depends(session)], x_api_key: Annotated[str, Header()]
) -> PlainPrincipal:
    value = await database.scalar(
        select(PlainPrincipal)
        .where(PlainPrincipal.key_sha256 == hashlib.sha256(x_api_key.encode()).hexdigest())
        .options(joinedload(PlainPrincipal.binding).joinedload(PlainBinding.packet))
    )
    if value is None:
        raise HTTPException(401, "unknown key")
    if value.suspended:
        raise HTTPException(403, "suspended")
    return value


@app.get("/readyz")
async def ready() -> dict[str, str]:
    return {"status": "ok"}


@app.post("/v1/bootstrap")
async def bootstrap(
    boot: BootBody,
    caller: Annotated[PlainPrincipal, Depends(principal)],
    database: Annotated[AsyncSession, Depends(session)],
) -> BootAnswer:
    binding = caller.binding
    permitted = any(
        pattern == boot.component_key or (pattern.endswith("*") and boot.component_key.startswith(pattern[:-1]))
        for pattern in binding.components
    )
    if not permitted:
        raise HTTPException(403, "component not permitted")
    now = datetime.now(UTC)
    opened = PlainStartup(
        principal_id=caller.id,
        component_key=boot.component_key,
        opened_at=now,
        deadline_at=now + timedelta(seconds=binding.sla_seconds),
        digest=binding.digest,
    )
    database.add(opened)
    await database.commit()
    return BootAnswer(
        startup_id=opened.id,
        principal_key=caller.name,
        component_key=boot.component_key,
        issued_at=now,
        deadline_at=opened.deadline_at,
        digest=binding.digest,
        packet=binding.packet.body,
    )


async def fill(digest: str, body: dict[str, Any], people: list[tuple[str, str]]) -> None:
    """The tables, one packet, and a principal with a binding for each (name, digest of its key)."""
    async with engine.begin() as connection:
        await connection.run_sync(PlainTable.metadata.create_all)
    async with Session() as database, database.begin():
        packet = PlainPacket(digest=digest, body=body)
        for name, key_sha256 in people:
            binding = PlainBinding(components=["indexer_*"], sla_seconds=120, packet=packet)
            database.add(PlainPrincipal(name=name, key_sha256=key_sha256, binding=binding))
    await engine.dispose()


if __name__ == "__main__":
    environ = os.environ  # noqa: TID251
    uvicorn.run("plain:app", port=int(environ["PORT"]), workers=int(environ["WORKERS"]), access_log=False)
