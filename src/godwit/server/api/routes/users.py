"""Users: who signs in, and what they may where. An administrator of some tenants manages the people of these."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, Field

from godwit.contract.errors import RejectedError
from godwit.server.accounts.model import User
from godwit.server.api.access import Admin, Rooms
from godwit.server.api.answers import answer, time_or_none
from godwit.server.api.problems import documented
from godwit.server.api.strict import Body, StrictRoute

router = APIRouter(prefix="/api/v1/users", tags=["users"], route_class=StrictRoute)

Name = Annotated[str, Path(min_length=1, max_length=128)]
Role = Literal["viewer", "operator", "admin"]
Grants = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=64)], Role],
    Field(min_length=1, max_length=1_000, description="tenant: role; * for all tenants"),
]
Password = Annotated[str, Field(min_length=1, max_length=1_024)]


class UserChange(Body):
    """Fields of a user that can be changed; those left out stay."""

    display: str | None = Field(None, max_length=128)
    email: str | None = Field(None, max_length=256)
    grants: Grants | None = None
    disabled: bool | None = None


class NewUser(Body):
    """A user to be added. Without a password he signs in at the OIDC provider."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "eve", "grants": {"*": "viewer"}, "password": "seven godwits fly"}]},
    )
    name: str = Field(min_length=1, max_length=128)
    grants: Grants
    password: Password | None = None
    mustChange: bool = True  # noqa: N815 - camelCase on the wire
    display: str = Field("", max_length=128)
    email: str = Field("", max_length=256)
    issuer: str | None = Field(None, min_length=1, max_length=256)
    subject: str | None = Field(None, min_length=1, max_length=256)


class NewPassword(Body):
    """A password that somebody else gives a user."""

    password: Password
    mustChange: bool = True  # noqa: N815


def user_document(user: User) -> dict[str, Any]:
    """Return a user as the API shows him."""
    document: dict[str, Any] = msgspec.to_builtins(user)
    document["disabled"] = document.pop("isDisabled")
    document["created"], document["lastSignIn"] = time_or_none(user.created), time_or_none(user.last_sign_in)
    return document


@router.get("", responses=documented(), summary="List users")
def list_users(who: Admin, rooms: Rooms) -> Response:
    """Return the users whom you administer."""
    return answer({"items": [user_document(each) for each in rooms.accounts.users.users(who)]})


@router.post("", status_code=201, responses=documented(409, 413), summary="Add a user")
def create(body: NewUser, who: Admin, rooms: Rooms) -> Response:
    """Add a user. With a password that you give him, he changes it at his first sign-in unless you say otherwise."""
    if (body.issuer is None) is not (body.subject is None):
        raise RejectedError("issuer and subject are said together", code="invalid-field")
    user = rooms.accounts.users.create(
        who, body.name, dict(body.grants), password=body.password, must_change=body.mustChange, display=body.display,
        email=body.email, issuer=body.issuer, subject=body.subject,
    )  # fmt: skip
    return answer(user_document(user), 201)


@router.get("/{name}", responses=documented(404), summary="Look at a user")
def get(name: Name, who: Admin, rooms: Rooms) -> Response:
    """Return a user."""
    return answer(user_document(rooms.accounts.users.user(who, name)))


@router.patch("/{name}", responses=documented(404, 409, 413), summary="Change or disable a user")
def change(name: Name, body: UserChange, who: Admin, rooms: Rooms) -> Response:
    """Change the fields that the body names. With other grants, or disabled, a user's sessions end."""
    changes = body.model_dump(exclude_unset=True)
    empty = sorted(field for field, value in changes.items() if value is None)
    if empty:
        raise RejectedError(f"{empty[0]} cannot be null", code="invalid-field")
    if "disabled" in changes:
        changes["is_disabled"] = changes.pop("disabled")
    return answer(user_document(rooms.accounts.users.change(who, name, changes)))


@router.post("/{name}/password", status_code=204, responses=documented(404, 413), summary="Give a user a password")
def password(name: Name, body: NewPassword, who: Admin, rooms: Rooms) -> Response:
    """Give a user a new password; his sessions end."""
    rooms.accounts.users.set_password(who, name, body.password, must_change=body.mustChange)
    return Response(status_code=204)


@router.delete("/{name}", status_code=204, responses=documented(404, 409), summary="Remove a user")
def remove(name: Name, who: Admin, rooms: Rooms) -> Response:
    """Remove a user with his sessions and tokens. What he did stays in the audit log."""
    rooms.accounts.users.remove(who, name)
    return Response(status_code=204)
