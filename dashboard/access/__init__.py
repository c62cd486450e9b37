"""Who may do what: keys, sessions, one-time tokens, limits, the gate before every route, the audit log.

Decisions about callers enter; what is then answered does not.
"""

from __future__ import annotations

from dashboard.access.audit import AUDIT_NAME, Audit
from dashboard.access.decisions import OWNER, Principal, bearer_token
from dashboard.access.gate import Gate
from dashboard.access.keys import Keys
from dashboard.access.limits import Limits, caller
from dashboard.access.one_time_tokens import JOIN_EXPIRY_S, LOGIN_EXPIRY_S, OneTimeTokens
from dashboard.access.routes import access_router, login_link
from dashboard.access.sessions import Sessions

__all__ = [
    "AUDIT_NAME",
    "JOIN_EXPIRY_S",
    "LOGIN_EXPIRY_S",
    "OWNER",
    "Audit",
    "Gate",
    "Keys",
    "Limits",
    "OneTimeTokens",
    "Principal",
    "Sessions",
    "access_router",
    "bearer_token",
    "caller",
    "login_link",
]
