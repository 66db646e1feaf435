"""A finished export on the hub, or whatever answers like it at HF_ENDPOINT: the token comes from the environment."""

from __future__ import annotations

import os
from pathlib import Path

from stepdpo.core.errors import Outage, UserError
from stepdpo.runtime.secrets import redact_text

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def token() -> str:
    """UserError where the environment has none."""
    found = next((value for name in TOKENS if (value := os.environ.get(name, "").strip())), "")
    if not found:
        raise UserError("push: HF_TOKEN is not set; it takes a token that may write")
    return found


def push(folder: Path, repository: str, private: bool) -> str:
    """Make the repository where there is none, and put the files of the folder into it; its address.

    Raises Outage where that fails: the folder stays.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    given = token()
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=given, library_name="stepdpo")
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export by stepdpo")
    except HFValidationError as error:
        raise UserError(f"push={repository}: {error}") from error
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        lines = [_first_line(one) for one in (error, error.__cause__) if one]  # of a file, the cause is the second
        said = redact_text(": ".join(lines).replace(given, "***"))
        raise Outage(f"{folder} is written, but push={repository} failed: {said}") from error
    return str(made)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
