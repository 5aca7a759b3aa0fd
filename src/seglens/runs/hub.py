"""The files of a repository of Hugging Face's hub, by an address such as ``hf://owner/name``.

Only files that hold numbers and descriptions are fetched, never code. The token is the one that
``huggingface_hub`` knows itself (``hf auth login``, ``HF_TOKEN``); it is in no record and no message.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils.tqdm import disable_progress_bars, enable_progress_bars

from seglens.errors import DataError
from seglens.files.hub_address import repository_of

FETCHED = ("*.json", "*.yaml", "*.yml", "*.safetensors", "*.pt", "*.pth", "*.ts", "*.onnx")
"""The files of a repository that are fetched."""


def fetch(address: str | Path) -> Path:
    """Return the folder with the files of a repository, fetched where they aren't here.

    Raises:
        SettingError: the address names no repository.
        DataError: it can't be had; it is said why.
    """
    name, revision = repository_of(address)
    disable_progress_bars()
    try:
        found: str = asked(
            name,
            "fetched",
            lambda: snapshot_download(name, revision=revision, allow_patterns=list(FETCHED)),
        )
    finally:
        enable_progress_bars()
    return Path(found)


def send(folder: Path, repository: str, *, private: bool) -> str:
    """Make a repository of the hub, where there is none, put a folder's files there; return its address.

    Raises:
        SettingError: ``repository`` is no name of one.
        DataError: it can't be done; it is said why.
    """
    name, _ = repository_of(repository)
    api = HfApi(library_name="seglens")

    def upload() -> str:
        made = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="A run of Seglens")
        return str(made)

    disable_progress_bars()
    try:
        return str(asked(name, "written", upload))
    finally:
        enable_progress_bars()


def asked(name: str, done: str, work: Callable[[], Any]) -> Any:
    """Return what ``work`` with a repository gives; what the hub's client raises becomes one clear line.

    Its own messages are not repeated: they may hold addresses with a token in them.
    """
    try:
        return work()
    except (LocalTokenNotFoundError, GatedRepoError) as error:
        reason, todo = "the hub wants to know who asks", "Log in: hf auth login"
        raise _refused(name, done, reason, todo) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        reason = "there is no such repository, or no leave to see it"
        raise _refused(name, done, reason, "Check its name, or log in: hf auth login") from error
    except HFValidationError as error:
        raise _refused(name, done, "the hub takes no such name", "Allowed is OWNER/NAME") from error
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        login = status in (401, 403)
        reason = "the hub doesn't know you, or gives you no leave" if login else f"the hub answered {status}"
        todo = "Log in with a token that may write: hf auth login" if login else "Try again later"
        raise _refused(name, done, reason, todo) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        todo = "Connect to the network, or unset HF_HUB_OFFLINE"
        raise _refused(name, done, "the hub can't be reached", todo) from error
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "requests", "urllib3")):
            raise
        todo = "Connect to the network, or unset HF_HUB_OFFLINE"
        raise _refused(name, done, "the hub can't be reached", todo) from error


def _refused(name: str, done: str, reason: str, todo: str) -> DataError:
    return DataError(f"The repository {name} can't be {done}: {reason}. {todo}.")
