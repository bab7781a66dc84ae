"""All checks, and the audit: what they find in the facts, the gravest first. Pure."""

from typing import Final

import msgspec

from godwit.server.checks import access, certificates, fleet, installation
from godwit.server.checks.model import Check, Facts, Finding, Severity

CHECKS: Final[tuple[Check, ...]] = tuple(
    sorted(
        (*certificates.CHECKS, *access.CHECKS, *fleet.CHECKS, *installation.CHECKS),
        key=lambda each: -each.severity.rank,
    )
)
AFFECTED_MAX: Final = 100
"""So many things of a finding are named; the others are counted."""


class Audit(msgspec.Struct, frozen=True):
    """What was found, and by which checks nothing was."""

    at: int
    findings: list[Finding]
    passed: list[Check]

    @property
    def worst(self) -> Severity | None:
        """Return the gravest severity; None: nothing was found."""
        return self.findings[0].severity if self.findings else None


def audit(facts: Facts, *, is_whole: bool) -> Audit:
    """Return what the checks find; those of the installation are made where `is_whole`."""
    findings, passed = [], []
    for check in CHECKS:
        if check.of_installation and not is_whole:
            continue
        affected = list(check.find(facts))
        if not affected:
            passed.append(check)
            continue
        findings.append(
            Finding(
                check.code, check.severity, check.title, check.why, check.todo, len(affected), affected[:AFFECTED_MAX]
            )
        )
    return Audit(facts.now, findings, passed)
