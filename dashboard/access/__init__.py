"""Who may do what: keys, sessions, join tokens, limits, the gate before every route, the audit log.

Decisions about callers enter; what is then answered does not.
"""

from __future__ import annotations

from dashboard.access.audit import AUDIT_NAME, Audit
from dashboard.access.decisions import LOCAL, Principal, bearer_token
from dashboard.access.gate import Gate
from dashboard.access.join_tokens import JoinTokens
from dashboard.access.keys import Keys
from dashboard.access.limits import Limits
from dashboard.access.routes import access_router
from dashboard.access.sessions import Sessions

__all__ = [
    "AUDIT_NAME",
    "LOCAL",
    "Audit",
    "Gate",
    "JoinTokens",
    "Keys",
    "Limits",
    "Principal",
    "Sessions",
    "access_router",
    "bearer_token",
]
