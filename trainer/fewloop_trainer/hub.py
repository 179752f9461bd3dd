"""A base model's folder out of a model on a hub (Hugging Face's, or one that speaks as it does: HF_ENDPOINT).

What is fetched is data alone: configuration, tokenizer, weights as safetensors. Pickled weights and a repository's own
code are never read. A name stands for what its owner last uploaded, a commit for the same files for ever; so the commit
is found first, all files are of it, the weights are held to the digest that the hub names, and `source.json` says what
the folder was made of.
"""

import json
import shutil
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo
from tokenizers import Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer

from fewloop_trainer.base_model import save_model
from fewloop_trainer.bundle import export_base
from fewloop_trainer.data import RunError, file_digest
from fewloop_trainer.encoder import load_model, load_tokenizer, require_own_tokenizer
from fewloop_trainer.files import write_json

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model-*.safetensors")
OTHERS = ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt", "README.md", "LICENSE*")


def fetch_base(named: str, out: Path) -> tuple[str, float]:
    """Makes the folder `out` of the model `named` `owner/name` or `owner/name@revision` (a branch, a tag, a commit;
    main where none is named), with the graph that serves. The commit, and how far the graph is from PyTorch at most, in
    a word's logit.

    Files are kept in the hub's cache (HF_HOME), where a fetch that was cut off goes on. Raises RunError (BAD_INPUT)
    where there is no such model, it cannot be reached, or it is not one to start from.
    """
    if out.exists():
        raise RunError("BAD_INPUT", f"{out} exists already: name a folder that is to be made")
    name, _, revision = named.partition("@")
    api = HfApi()
    try:
        info = api.model_info(name, revision=revision or "main", files_metadata=True)
        _require_safetensors(named, info)
        fetched = Path(snapshot_download(name, revision=info.sha, allow_patterns=[*WEIGHTS, *OTHERS]))
    except (HFValidationError, HfHubHTTPError, httpx2.HTTPError, OSError, EntryNotFoundError) as error:
        raise RunError("BAD_INPUT", f"{named}: {_reason(error, api.endpoint)}") from error
    digests = _verified(named, info, fetched)

    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model = load_model(fetched, needs_head=True)
    save_model(model, partial)
    tokenizer = _tokenizer_of(fetched)
    tokenizer.save(str(partial / "tokenizer.json"))
    require_own_tokenizer(partial, model, load_tokenizer(partial))
    for file in (path for pattern in ("README.md", "LICENSE*") for path in fetched.glob(pattern)):
        shutil.copyfile(file, partial / file.name)
    difference = export_base(partial)
    source = {"name": name, "revision": info.sha, "sha256": digests}
    write_json(partial / "source.json", source)
    partial.rename(out)
    return info.sha, difference


def _require_safetensors(named: str, info: ModelInfo) -> None:
    files = [sibling.rfilename for sibling in info.siblings or ()]
    if not any(Path(file).match(pattern) for file in files for pattern in WEIGHTS if "/" not in file):
        has = "only pickled ones, which could run code here" if "pytorch_model.bin" in files else "none"
        raise RunError(
            "BAD_INPUT",
            f"{named}: has no weights as model.safetensors ({has}): name a revision that has them, as pull requests of "
            "the hub's converter do (@refs/pr/N), or convert them elsewhere and give the folder",
        )


def _verified(named: str, info: ModelInfo, fetched: Path) -> dict[str, str]:
    """SHA-256 of the weights' files. Raises RunError where one is not what the hub names."""
    expected = {sibling.rfilename: sibling.lfs.sha256 for sibling in info.siblings or () if sibling.lfs is not None}
    found = {path.name: file_digest(path) for path in sorted(fetched.glob("*.safetensors"))}
    for file, digest in found.items():
        if expected.get(file, digest) != digest:
            raise RunError(
                "BAD_INPUT",
                f"{named}: {file} has SHA-256 {digest}, and the hub names {expected[file]}: remove "
                f"{(fetched / file).resolve()} and fetch again",
            )
    return found


def _tokenizer_of(fetched: Path) -> Tokenizer | BertWordPieceTokenizer:
    """The tokenizer of the model; by `vocab.txt` where the repository is older than `tokenizer.json`."""
    if (fetched / "tokenizer.json").exists() or not (fetched / "vocab.txt").exists():
        return load_tokenizer(fetched)
    described = fetched / "tokenizer_config.json"
    settings = json.loads(described.read_text()) if described.exists() else {}
    return BertWordPieceTokenizer(
        str(fetched / "vocab.txt"),
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )


def _reason(error: Exception, endpoint: str) -> str:
    if isinstance(error, HFValidationError):
        return f"is no name of a model on a hub, owner/name or owner/name@revision ({error})"
    if isinstance(error, GatedRepoError):
        return f"has conditions that are to be accepted at {endpoint}; then set HF_TOKEN"
    if isinstance(error, RevisionNotFoundError):
        return "has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return f"{endpoint} has no such model, or does not show it to this HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to fetch it"
    if isinstance(error, HfHubHTTPError):
        return f"{endpoint} answers {error.response.status_code}: {error}"
    if isinstance(error, httpx2.HTTPError):
        return f"{endpoint} cannot be reached ({error}): HF_ENDPOINT names another hub, HTTPS_PROXY a way to it"
    return f"cannot be fetched: {error}"
