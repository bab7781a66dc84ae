"""Signing in at an OpenID Connect provider: authorization code with PKCE, state and nonce.

The provider is trusted to say who somebody is, and, where OIDC_GRANTS says so, what he may. Only HTTPS is spoken to it,
except on this machine. Everything blocks: threads call it.
"""

import hashlib
import hmac
import secrets
import threading
from base64 import urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Mapping
from time import monotonic, time
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx
import msgspec
from joserfc.jwk import KeySet

from godwit.contract.errors import RejectedError, UnavailableError
from godwit.server.accounts.model import User
from godwit.server.accounts.oidc_settings import OidcSettings, check_url
from godwit.server.accounts.oidc_tokens import read_id_token, read_logout_token
from godwit.server.accounts.principal import ROLES, Principal, check_grants
from godwit.server.accounts.refusals import Refusals
from godwit.server.accounts.sign_in import SignInDoor
from godwit.server.accounts.users import Users, parse_user_name

TIMEOUT_S: Final = 10.0
ANSWER_BYTES_MAX: Final = 262_144
FLOW_S: Final = 600.0
FLOWS_MAX: Final = 2_000
KEEP_METADATA_S: Final = 3_600.0
KEEP_KEYS_S: Final = 10.0
"""Anybody may post a logout token: the provider is not asked for its keys as often as that."""
FAILED_S: Final = 5.0
"""Who asks so soon after a failure hears of that one."""
_PROVIDER: Final = Principal("oidc")
"""In the audit log: the provider's word made or changed a user."""


class _Flow(NamedTuple):
    nonce: str
    verifier: str
    redirect_uri: str
    begun: float


class OidcDoor:
    """Thread-safe."""

    def __init__(self, settings: OidcSettings, users: Users, sign_in: SignInDoor, refusals: Refusals) -> None:
        self.settings = settings
        self._users, self._sign_in, self._refusals = users, sign_in, refusals
        self._lock = threading.Lock()
        self._flows: OrderedDict[str, _Flow] = OrderedDict()
        self._asking = threading.Lock()
        self._published: dict[str, tuple[dict[str, Any] | str, float]] = {}
        """Address -> what stood there, or why nobody knows; and until when that is believed."""

    def begin(self, redirect_uri: str) -> tuple[str, str]:
        """Return where to send the browser, and the state that its cookie has to have when it comes back.

        Raises UnavailableError (`provider-unavailable`).
        """
        metadata = self._discover()
        state, flow = secrets.token_urlsafe(24), _Flow(
            secrets.token_urlsafe(24), secrets.token_urlsafe(48), redirect_uri, monotonic()
        )  # fmt: skip
        with self._lock:
            self._flows[state] = flow
            while len(self._flows) > FLOWS_MAX:
                self._flows.popitem(last=False)
        challenge = urlsafe_b64encode(hashlib.sha256(flow.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code", "client_id": self.settings.client_id, "redirect_uri": redirect_uri,
            "scope": "openid profile email", "state": state, "nonce": flow.nonce, "code_challenge": challenge,
            "code_challenge_method": "S256",
        }  # fmt: skip
        where = metadata["authorization_endpoint"]
        return f"{where}{'&' if '?' in where else '?'}{urlencode(query)}", state

    def finish(self, query: Mapping[str, str], cookie_state: str, *, address: str, agent: str) -> str:
        """Return the secret of a new session for who comes back from the provider.

        Raises RejectedError (`oidc-refused`, `oidc-invalid`, `not-admitted`), UnavailableError.
        """
        try:
            return self._finish(query, cookie_state, address, agent)
        except RejectedError as error:
            self._refusals.note("?", "sign-in.refuse", self.settings.issuer, code=error.code, address=address)
            raise

    def _finish(self, query: Mapping[str, str], cookie_state: str, address: str, agent: str) -> str:
        state = query.get("state", "")
        with self._lock:
            flow = self._flows.pop(state, None)
        is_same_browser = hmac.compare_digest(state.encode(), cookie_state.encode())
        if flow is None or not is_same_browser or monotonic() - flow.begun > FLOW_S:
            raise RejectedError("this sign-in was not begun here, or took too long; begin anew", code="oidc-invalid")
        if query.get("iss", self._discover()["issuer"]) != self._discover()["issuer"]:  # RFC 9207, 2.4
            raise RejectedError("this answer is another provider's", code="oidc-invalid")
        if "error" in query or not query.get("code"):
            raise RejectedError("the provider did not sign you in", code="oidc-refused")
        claims = self._claims(self._exchange(query["code"], flow), flow.nonce)
        user = self._user_of(claims, address)
        if user.is_disabled:
            raise RejectedError("this account is disabled", code="not-admitted")
        longest = self.settings.session_s_max
        return self._sign_in.begin(user.name, address=address, agent=agent, how="oidc", longest_s=longest)

    def log_out(self, token: str, *, address: str) -> None:
        """End the sessions of whom the provider has signed out (OpenID Connect Back-Channel Logout 1.0, 2.6).

        Raises RejectedError (`oidc-invalid`), UnavailableError.
        """
        try:
            claims = read_logout_token(token, self._keys(), *self._ours(), now=int(time()))
        except RejectedError as error:
            self._refusals.note("?", "sign-out.refuse", self.settings.issuer, code=error.code, address=address)
            raise
        user = self._users.by_subject(self.settings.issuer, str(claims["sub"])[:256])
        if user is not None:
            self._sign_in.end_all(msgspec.structs.replace(_PROVIDER, address=address), user.name)

    # --- what the provider says -----------------------------------------------------------------------------------

    def _discover(self) -> dict[str, Any]:
        issuer = self.settings.issuer.rstrip("/")
        found = self._look_up(f"{issuer}/.well-known/openid-configuration", KEEP_METADATA_S)
        if str(found.get("issuer", "")).rstrip("/") != issuer:
            raise UnavailableError("the provider calls itself otherwise than OIDC_ISSUER", code="provider-unavailable")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            check_url(str(found.get(name, "")), f"the provider's {name}")
        return found

    def _look_up(self, url: str, keep_s: float) -> dict[str, Any]:
        """Return what the provider publishes: asked once for all who want it now, whatever comes of it."""
        with self._asking:
            found, until = self._published.get(url, ("", 0.0))
            if monotonic() >= until:
                try:
                    found, until = self._ask("GET", url), monotonic() + keep_s
                except UnavailableError as error:
                    found, until = str(error), monotonic() + FAILED_S
                self._published[url] = found, until
        if isinstance(found, str):
            raise UnavailableError(found, code="provider-unavailable")
        return found

    def _exchange(self, code: str, flow: _Flow) -> str:
        """Return the ID token for a code."""
        metadata, settings = self._discover(), self.settings
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": flow.redirect_uri,
            "client_id": settings.client_id, "code_verifier": flow.verifier,
        }  # fmt: skip
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        basic = None
        if settings.client_secret and "client_secret_basic" in methods:
            basic = (settings.client_id, settings.client_secret)
        elif settings.client_secret:
            form["client_secret"] = settings.client_secret
        answer = self._ask("POST", metadata["token_endpoint"], form=form, basic=basic)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise RejectedError("the provider gave no ID token", code="oidc-refused")
        return token

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token that is the provider's, for us, and for this sign-in."""
        return read_id_token(token, self._keys(), *self._ours(), nonce=nonce, now=int(time()))

    def _keys(self) -> KeySet:
        published: Any = self._look_up(self._discover()["jwks_uri"], KEEP_KEYS_S)
        return KeySet.import_key_set(published)

    def _ours(self) -> tuple[str, str]:
        return str(self._discover()["issuer"]), self.settings.client_id

    def _ask(
        self, method: str, url: str, *, form: Mapping[str, str] | None = None, basic: tuple[str, str] | None = None
    ) -> dict[str, Any]:
        auth = httpx.BasicAuth(*basic) if basic is not None else None
        try:
            with (
                httpx.Client(timeout=TIMEOUT_S, follow_redirects=False) as client,
                client.stream(method, url, data=form, auth=auth, headers={"accept": "application/json"}) as answer,
            ):
                body = b""
                for part in answer.iter_bytes():
                    body += part
                    if len(body) > ANSWER_BYTES_MAX:
                        raise UnavailableError("the provider's answer is too long", code="provider-unavailable")
        except httpx.HTTPError as error:
            raise UnavailableError(
                f"the provider at {urlsplit(url).hostname} does not answer: {type(error).__name__}",
                code="provider-unavailable",
            ) from error
        if method == "POST" and 400 <= answer.status_code < 500:
            raise RejectedError("the provider does not know this sign-in", code="oidc-refused")
        try:
            document = msgspec.json.decode(body)
        except msgspec.DecodeError:
            document = None
        if answer.status_code != 200 or not isinstance(document, dict):
            raise UnavailableError(f"the provider answered {answer.status_code}", code="provider-unavailable")
        return document

    # --- what follows from it -------------------------------------------------------------------------------------

    def _user_of(self, claims: Mapping[str, Any], address: str) -> User:
        """Return the user who this is: known, expected, or admitted. Raises RejectedError (`not-admitted`)."""
        who = msgspec.structs.replace(_PROVIDER, address=address)
        issuer, subject = self.settings.issuer, str(claims["sub"])[:256]
        granted = self.grants_of(claims)
        user = self._users.by_subject(issuer, subject) or self._expected(who, claims)
        if user is None:
            if not granted:
                raise RejectedError("nobody here knows this account; ask an administrator", code="not-admitted")
            return self._users.create(
                who, self._free_name(claims, subject), granted, display=str(claims.get("name", ""))[:128],
                email=str(claims.get("email", ""))[:256], issuer=issuer, subject=subject,
            )  # fmt: skip
        if self.settings.grants and not granted:
            if user.grants:
                self._users.strip(who, user.name)
            raise RejectedError("the provider gives this account no rights any more", code="not-admitted")
        if self.settings.grants and user.grants != granted:
            return self._users.change(who, user.name, {"grants": granted})
        return user

    def grants_of(self, claims: Mapping[str, Any]) -> dict[str, str]:
        """Return what the provider's claims grant; else what strangers get."""
        said = claims.get(self.settings.claim, [])
        values = said if isinstance(said, list) else [said]
        found: dict[str, str] = {}
        for value in values:
            for tenant, role in self.settings.grants.get(str(value), {}).items():
                found[tenant] = max(role, found.get(tenant, role), key=ROLES.index)
        return check_grants(found) if found else dict(self.settings.admit)

    def _expected(self, who: Principal, claims: Mapping[str, Any]) -> User | None:
        """Return the user whom an administrator has added for this verified e-mail address, bound to it now."""
        email = str(claims.get("email", "")).lower()
        if not email or claims.get("email_verified") is not True:
            return None
        return self._users.bind(who, email, self.settings.issuer, str(claims["sub"])[:256])

    def _free_name(self, claims: Mapping[str, Any], subject: str) -> str:
        digest = hashlib.sha256(f"{self.settings.issuer} {subject}".encode()).hexdigest()[:10]
        for wanted in (claims.get("preferred_username"), claims.get("email"), f"oidc-{digest}"):
            try:
                name = parse_user_name(str(wanted or ""))
            except RejectedError:
                continue
            if not self._users.is_taken(name):
                return name
        return f"oidc-{digest}"
