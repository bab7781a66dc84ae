"""Puts the console on the front application: pages, static files, the guard, and the sign-in road."""

from typing import Any, Final

from fastapi import FastAPI
from nicegui import app as nicegui_app
from nicegui import ui

from godwit.server.accounts.room import Accounts
from godwit.server.console import parts
from godwit.server.console.pages import (
    access,
    account,
    audit_log,
    broker,
    certificates,
    clocks,
    device,
    device_grant,
    devices,
    enrollment,
    overview,
    quarantine,
    security,
    tenants,
)
from godwit.server.console.plain import STATIC, head_html
from godwit.server.console.session import Guard
from godwit.server.console.sign_in import SignIn
from godwit.server.platform import Platform

_FAVICON: Final = parts.LOGO.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" color="#0f8a83" ')


def mount(app: FastAPI, platform: Platform, accounts: Accounts) -> None:
    """Serve the console from `app`, at every address that the API leaves free. Once per process (NiceGUI is global)."""
    head = head_html()
    mark = head.split("/console/", 1)[1].split("/", 1)[0]
    # cookies know no port: two platforms on one host must not sign each other out
    cookie = f"godwit-session-{platform.settings.server_port}"
    sign_in = SignIn(accounts, cookie, head)
    nicegui_app.add_route("/sign-in", sign_in.show, methods=["GET"])
    nicegui_app.add_route("/sign-in", sign_in.submit, methods=["POST"])
    nicegui_app.add_route("/sign-in/oidc", sign_in.go_to_provider, methods=["GET"])
    nicegui_app.add_route("/sign-in/oidc/callback", sign_in.come_back, methods=["GET"])
    nicegui_app.add_route("/sign-in/oidc/logout", sign_in.signed_out, methods=["POST"])
    nicegui_app.add_route("/password", sign_in.show_password, methods=["GET"])
    nicegui_app.add_route("/password", sign_in.submit_password, methods=["POST"])
    nicegui_app.add_route("/sign-out", sign_in.leave, methods=["POST"])
    nicegui_app.add_static_files(f"/console/{mark}", STATIC)
    ui.add_head_html(head, shared=True)
    for page in (
        overview, devices, device, enrollment, certificates, device_grant, quarantine, clocks, broker, security,
        access, tenants, audit_log, account,
    ):  # fmt: skip
        page.register(platform)
    guard: Any = Guard
    nicegui_app.add_middleware(guard, accounts=accounts, cookie=cookie)
    ui.run_with(
        app,
        title="godwit",
        favicon=_FAVICON,
        dark=None,
        tailwind=False,
        binding_refresh_interval=None,
        show_welcome_message=False,
    )
