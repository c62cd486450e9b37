"""An official openai client, driven by JSON lines: started with the client's packages and no others.

A line in is ``{"base_url", "key", "method", "arguments"}``; ``method`` is one of ``client.videos``, or of
this file. A line out is ``{"value"}`` or ``{"error"}``. What JSON cannot say is an object with one key
that begins with a dollar sign.
"""

from __future__ import annotations

import base64
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import openai

warnings.simplefilter("ignore")


def decoded(value: Any) -> Any:
    match value:
        case {"$bytes": str(text)}:
            return base64.b64decode(text)
        case {"$file": str(text)}:
            return io.BytesIO(base64.b64decode(text))
        case {"$path": str(text)}:
            return Path(text)
        case {"$tuple": [*parts]}:
            return tuple(decoded(part) for part in parts)
        case dict():
            return {key: decoded(each) for key, each in value.items()}
    return value


def encoded(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", warnings=False)
    if hasattr(value, "response") and hasattr(value, "read"):
        return {
            "status": value.response.status_code,
            "headers": dict(value.response.headers),
            "content": base64.b64encode(value.read()).decode(),
        }
    return value


def every_id(client: openai.OpenAI, **arguments: Any) -> list[str]:
    """The ids of all pages, one after the other."""
    return [video.id for video in client.videos.list(**arguments)]


def page(client: openai.OpenAI, **arguments: Any) -> dict[str, Any]:
    """One page as it came."""
    return json.loads(client.videos.with_raw_response.list(**arguments).content)


def streamed(client: openai.OpenAI, path: str, **arguments: Any) -> int:
    """A download written to a file chunk by chunk; the largest chunk's bytes."""
    largest = 0
    download = client.videos.with_streaming_response.download_content
    with download(**arguments) as response, Path(path).open("wb") as file:
        for chunk in response.iter_bytes():
            largest = max(largest, len(chunk))
            file.write(chunk)
    return largest


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        client = openai.OpenAI(base_url=asked["base_url"], api_key=asked["key"])
        own = globals().get(asked["method"])
        try:
            arguments = decoded(asked["arguments"])
            called = getattr(client.videos, asked["method"]) if own is None else own
            answer = {"value": encoded(called(**arguments) if own is None else own(client, **arguments))}
        except openai.APIStatusError as error:
            answer = {
                "error": type(error).__name__,
                "status": error.status_code,
                "code": error.code,
                "param": error.param,
                "message": error.message,
            }
        except Exception as error:
            answer = {"error": type(error).__name__, "message": str(error)}
        finally:
            client.close()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
