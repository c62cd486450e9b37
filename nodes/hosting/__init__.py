"""A farm put together on this machine: for one job, or to stay up.

Composition enters: Ray, coordinator, journal and storage, up and down again.
"""

from __future__ import annotations

from nodes.hosting.doctor import examine, examine_joining, examine_security
from nodes.hosting.host import planned
from nodes.hosting.keep_up import keep_up
from nodes.hosting.licences import accept_licence, check_licences
from nodes.hosting.models_here import models_here
from nodes.hosting.models_kept import add_model, fetch_model, remove_model
from nodes.hosting.render_here import deliver, described, render_here, retry_here, review_here
from nodes.hosting.review_here import save_keyframes

__all__ = [
    "accept_licence",
    "add_model",
    "check_licences",
    "deliver",
    "described",
    "examine",
    "examine_joining",
    "examine_security",
    "fetch_model",
    "keep_up",
    "models_here",
    "planned",
    "remove_model",
    "render_here",
    "retry_here",
    "review_here",
    "save_keyframes",
]
