"""From a request's body to a job that runs: uploads, the files that are kept, submitting once.

What both doors share on the way in enters.
"""

from __future__ import annotations

from dashboard.intake.job_requests import Intake, caller_of
from dashboard.intake.kept_uploads import KeptUpload, KeptUploads
from dashboard.intake.specs import Specs
from dashboard.intake.submitting import MAX_KEY_CHARS, Submitting, check_key
from dashboard.intake.turns import Turns
from dashboard.intake.upload_space import UploadSpace
from dashboard.intake.uploads import MAX_TEXT_WITH_INPUT_BYTES, File, Form, Upload, content_kind, read_body

__all__ = [
    "MAX_KEY_CHARS",
    "MAX_TEXT_WITH_INPUT_BYTES",
    "File",
    "Form",
    "Intake",
    "KeptUpload",
    "KeptUploads",
    "Specs",
    "Submitting",
    "Turns",
    "Upload",
    "UploadSpace",
    "caller_of",
    "check_key",
    "content_kind",
    "read_body",
]
