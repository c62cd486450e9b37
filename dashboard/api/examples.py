"""Values shown as examples in the OpenAPI document: one small job of three seconds on two CPU workers."""

from __future__ import annotations

from typing import Any

JOB_ID = "job-3f9c2a7b1d05"
UPLOAD_ID = "upload-5b0d9e21c7af"
_SHA256 = "8f9d0b5f90c201e3fa830ec46f7f1b5f9d4560afd6b6239e60122dce35b9aded"
_PROMPT = "A lighthouse at dusk, waves rolling in"
_SUBMITTED_AT = 1795300053.3
_WHY = "resident fits (0.16 GiB of 4.00 GiB); done 0.0 s before near/cpu0"
_NEED_BYTES = 168427520

OPTIONS: dict[str, Any] = {
    "model": "tiny_wan",
    "prompts": [_PROMPT],
    "seconds": 3,
    "fit": "pad",
    "preset": "preview",
}
JOB_BODY: dict[str, Any] = {**OPTIONS, "inputs": [UPLOAD_ID]}
UPLOAD: dict[str, Any] = {
    "id": UPLOAD_ID,
    "kind": "image",
    "width": 96,
    "height": 96,
    "num_frames": 1,
    "fps": None,
    "notes": [],
    "sound": None,
    "name": "lighthouse.jpg",
    "expires_at": 1795386453.3,
}
CHECKS: dict[str, Any] = {"data": [{"name": "holiday.mp4", "num_frames": 5400, "share": 0.3}]}
JOB: dict[str, Any] = {
    "id": JOB_ID,
    "status": "running",
    "reason": "",
    "waiting_for": "",
    "queue_position": None,
    "priority": 50,
    "can_retry": False,
    "review": None,
    "model": "tiny_wan",
    "mode": "infill",
    "prompt": _PROMPT,
    "width": 64,
    "height": 64,
    "fps": 8.0,
    "num_frames": 24,
    "rendered_fps": 8.0,
    "rendered_frames": 24,
    "segments": {"total": 5, "done": 3, "running": 2},
    "progress": 0.72,
    "eta_s": 4.5,
    "submitted_at": _SUBMITTED_AT,
    "finished_at": None,
    "submitted_by": "night renders",
    "remixed_from": None,
    "refused_results": 0,
    "seams": {"measured": 2, "failed": 0},
    "cost": None,
    "last_event_id": 22,
}
_FOOTPRINT = {
    "need_bytes": {"resident": _NEED_BYTES},
    "slowdown": {"resident": 1.0},
    "prior_seconds_per_mpixel_step": 0.01,
    "prior_load_s": 0.0,
    "decode_steps": 1.0,
    "encode_steps": 0.4,
}
_MEDIA = {
    "kind": "image",
    "width": 96,
    "height": 96,
    "num_frames": 1,
    "fps": None,
    "sha256": _SHA256,
    "notes": [],
}
PLAN: dict[str, Any] = {
    "model": "tiny_wan",
    "mode": "independent",
    "num_frames": 24,
    "fps": "8",
    "width": 64,
    "height": 64,
    "fit": "pad",
    "sound": None,
    "window_frames": 8,
    "overlap_frames": 3,
    "num_inference_steps": 1,
    "guidance_scale": 1.0,
    "negative_prompt": "",
    "strength": None,
    "seed": 0,
    "shots": [
        {
            "index": 0,
            "start": 0,
            "end": 24,
            "mode": "independent",
            "prompt": _PROMPT,
            "media": {**_MEDIA, "path": f"{_SHA256}.png"},
            "last_media": None,
        }
    ],
    "segments": [
        {
            "id": "s0-0",
            "shot": 0,
            "level": "final",
            "start": 0,
            "end": 8,
            "num_frames": 8,
            "head": 0,
            "tail": 3,
            "frame_stride": 1,
            "keyframe_indices": None,
            "num_inference_steps": None,
            "depends_on": [],
            "handover_index": None,
            "handover_from": None,
            "anchor_from": None,
            "sources": [],
            "hop": 0,
            "anchor_strength": 0.0,
        }
    ],
    "on": {"cuda": _FOOTPRINT, "cpu": _FOOTPRINT},
    "notes": [],
}
KEYFRAME: dict[str, Any] = {
    "number": 3,
    "frame": 15,
    "time_s": 1.875,
    "prompt": _PROMPT,
    "segment": "d0-0",
    "position": 3,
    "status": "done",
    "take": 1,
    "seed": 7,
    "replaced": False,
    "replaceable": True,
    "made_again_with": [1, 2, 4],
    "sha256": _SHA256,
}
_WHOLE = [0.0, 0.0, 1.0, 1.0]
FRAMINGS: list[dict[str, Any]] = [{"seen": _WHOLE, "place": _WHOLE, "said": ""}]
QUOTE: dict[str, Any] = {
    "num_segments": 5,
    "num_frames": 24,
    "duration_s": 3.0,
    "mode": "independent",
    "width": 64,
    "height": 64,
    "fps": 8.0,
    "predicted_s": 12.4,
    "measured": True,
    "critical_path_s": 2.1,
    "cost": None,
    "energy_wh": None,
    "workers": [
        {
            "worker_id": "near/cpu0",
            "device_name": "CPU",
            "segments": 5,
            "busy_s": 12.4,
            "rung": "resident",
            "need_bytes": _NEED_BYTES,
            "why_not": None,
        }
    ],
    "notes": [],
}
_ATTEMPT = {
    "id": f"{JOB_ID}/s0-1/1",
    "worker_id": "near/cpu1",
    "rung": "resident",
    "take": 0,
    "started_at": _SUBMITTED_AT,
    "ended_at": 1795300055.4,
    "wall_s": 2.1,
    "load_s": 0.4,
    "outcome": "succeeded",
    "message": "",
}
SEGMENT: dict[str, Any] = {
    "id": "s0-1",
    "shot": 0,
    "level": "final",
    "start": 5,
    "end": 13,
    "num_frames": 8,
    "head": 3,
    "tail": 3,
    "depends_on": [],
    "status": "done",
    "take": 0,
    "takes": 1,
    "worker_id": "near/cpu1",
    "why": _WHY,
    "rung": "resident",
    "need_bytes": _NEED_BYTES,
    "vram_bytes": 4294967296,
    "predicted_s": 2.0,
    "wall_s": 2.1,
    "peak_bytes": 145268736,
    "fill": None,
    "failed_attempts": 0,
    "earlier_attempts": None,
    "attempts": [_ATTEMPT],
}
SEGMENT_LOG = (
    "2026-11-21T11:20:53.321Z attempt 1 goes to near/cpu1 at resident: needs 0.16 GiB, about 2.0 s; "
    f"{_WHY}\n"
    "    2026-11-21T11:20:53.723Z INFO load: 0.40 s\n"
    "    2026-11-21T11:20:55.379Z INFO denoise: 1.61 s\n"
    "2026-11-21T11:20:55.443Z attempt 1 is done in 2.1 s, 0.4 s of it loading: 8 frames, 49124 bytes\n"
    "2026-11-21T11:20:55.640Z take 0: the seam passes\n"
)
SEAM: dict[str, Any] = {
    "after": "s0-0",
    "before": "s0-1",
    "start": 5,
    "overlap": 3,
    "accepted_take": 0,
    "passed": True,
    "failed_gates": [],
    "decision": "gates passed",
    "report": {
        "index": 1,
        "overlap": 3,
        "kind": "morph",
        "time_slip_frames": 0.0,
        "residual_fraction_of_width": 0.0,
        "valid_fraction": 1.0,
        "mae_ratio": 1.0,
        "warp_error_ratio": 0.732,
        "flow_jerk_ratio": 0.449,
        "sharpness_ratio": 1.0,
        "lab_step": 0.0,
        "scene_cut": False,
        "failed_gates": [],
        "passed": True,
    },
    "takes": [{"take": 0, "passed": True, "failed_gates": []}],
}
TIMELINE: dict[str, Any] = {
    "now": 1795300056.0,
    "workers": ["near/cpu1"],
    "segments": {
        "id": ["s0-1"],
        "shot": [0],
        "level": ["final"],
        "start": [5],
        "end": [13],
        "head": [3],
        "status": ["done"],
        "take": [0],
        "worker": [0],
        "assigned_at": [_SUBMITTED_AT],
        "ended_at": [1795300055.4],
        "done_fraction": [1.0],
    },
    "attempts": {
        "id": [f"{JOB_ID}/s0-1/1"],
        "segment": [0],
        "worker": [0],
        "take": [0],
        "started_at": [_SUBMITTED_AT],
        "ended_at": [1795300055.4],
        "outcome": ["succeeded"],
    },
    "last_event_id": 22,
}
REPORT: dict[str, Any] = {
    **JOB,
    "settings": {name: value for name, value in PLAN.items() if name not in ("shots", "segments", "on")},
    "notes": [],
    "shots": [{**PLAN["shots"][0], "media": _MEDIA}],
    "segments": [SEGMENT],
    "seams": [SEAM],
    "workers": {
        "near/cpu1": {
            "kind": "cpu",
            "device_name": "CPU",
            "vram_bytes": 4294967296,
            "segments": 1,
            "busy_s": 2.1,
            "failed_attempts": 0,
        }
    },
    "totals": {
        "wall_s": None,
        "critical_path_s": 2.1,
        "stitch_s": None,
        "size_bytes": None,
        "frames_sha256": None,
        "refused_results": 0,
    },
}
EVENTS = (
    "id: 22\n"
    "event: attempt_succeeded\n"
    f'data: {{"at": 1795300055.4, "type": "attempt_succeeded", "job_id": "{JOB_ID}", "task_id": "s0-1"}}\n\n'
)
ARTIFACT: dict[str, Any] = {
    "name": "video.mp4",
    "media_type": "video/mp4",
    "size_bytes": 1312900,
    "href": f"/api/v1/jobs/{JOB_ID}/artifacts/video.mp4",
    "ready": True,
}
MODEL: dict[str, Any] = {
    "model": "tiny_wan",
    "engine": "wan",
    "takes": ["image", "text", "video"],
    "source": "built in",
    "repository": None,
    "here": True,
    "licence": {
        "name": "Apache License 2.0",
        "url": "https://www.apache.org/licenses/LICENSE-2.0",
        "restricts_use": False,
    },
    "accepted": True,
}
PRESET: dict[str, Any] = {
    "name": "preview",
    "title": "Preview",
    "description": "A quick look: 256 pixels, windows of 8 frames, 30 steps, 24 frames a second.",
    "options": {"preview": True, "deliver_fps": 24},
    "suits": ["image", "video"],
    "level": {"side_px": 256, "window_frames": 8, "num_inference_steps": 30},
}
WORKER: dict[str, Any] = {
    "id": "attic/cuda0",
    "node": "attic",
    "address": "192.168.1.20",
    "joined": True,
    "kind": "cuda",
    "device_name": "NVIDIA GeForce RTX 3060",
    "vram_bytes": 11811160064,
    "status": "busy",
    "draining": False,
    "tasks": [
        {
            "job_id": JOB_ID,
            "task_id": "s0-2",
            "rung": "resident",
            "phase": "denoise",
            "done_fraction": 0.4,
            "started_at": 1795300055.5,
        }
    ],
    "warm_model": "tiny_wan",
    "models": {"wan2.2-ti2v-5b": 34203200512},
    "seconds_per_mpixel_step": {"tiny_wan": 0.86},
    "idle_because": "",
    "price_per_hour": 0.12,
    "compute_capability": "8.6",
    "driver": "570.86",
    "vram_used_bytes": 3221225472,
    "vram_total_bytes": 12884901888,
    "vram_others_bytes": 314572800,
    "memory_used_bytes": 2147483648,
    "load": 0.97,
    "temperature_c": 64.0,
    "power_w": None,
    "telemetry_at": 1795300056.0,
}
NODE: dict[str, Any] = {"name": "attic", "address": "192.168.1.20", "status": "busy", "workers": [WORKER]}
JOIN_OFFER: dict[str, Any] = {
    "ray_address": "192.168.1.10:6379",
    "ray_token": "5f0c…",
    "versions": {"ray": "2.60.0"},
    "node_token": "9b1e…",
}
STORAGE: dict[str, Any] = {
    "used": {"files": 214, "size_bytes": 1843200000},
    "published": {"files": 36, "size_bytes": 96400000},
    "unknown": {"files": 0, "size_bytes": 0},
    "unknown_jobs": [],
    "trash": {"files": 0, "size_bytes": 0},
    "missing_files": 0,
    "free_bytes": 412316860416,
}
