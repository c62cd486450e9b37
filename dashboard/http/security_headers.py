"""What every answer tells browsers to leave alone."""

from __future__ import annotations

#: Pages run this farm's own scripts and reach nothing else; what a page makes itself (previews) are blobs.
_POLICY = (
    "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # With no-referrer a form would name no origin.
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
#: Of the page that computes in the browser and of what its workers run: WebAssembly may be compiled, and the
#: page is isolated from all others, without which browsers give it one thread.
ISOLATED = {
    "content-security-policy": f"{_POLICY}; script-src 'self' 'wasm-unsafe-eval'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-embedder-policy": "require-corp",
}
