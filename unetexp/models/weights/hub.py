"""timm's pretrained weights, from the cache of the Hugging Face hub or, once, from the hub."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from unetexp.errors import WeightsUnavailableError
from unetexp.models.encoders import EncoderSettings
from unetexp.models.weights.files import read_tensors
from unetexp.models.weights.imagenet import PATIENCE_S
from unetexp.models.weights.packaged import package_of
from unetexp.models.weights.provenance import UNKNOWN, Provenance, of_file
from unetexp.network import no_answer, reason

_FILE = "model.safetensors"


class _Hosted(NamedTuple):
    repository: str
    revision: str | None
    license: str


def find_on_hub(encoder: EncoderSettings) -> None:
    """Return if timm's weights are in the cache or the hub answers within PATIENCE_S.

    Raises WeightsUnavailableError if neither, or if timm has none of this name. Nothing is
    downloaded.
    """
    hosted = _hosted(encoder)
    if _cached(hosted) is not None:
        return
    if problem := _no_hub(hosted):
        raise _unavailable(encoder, hosted, problem)


def fetch_from_hub(encoder: EncoderSettings) -> object:
    """The tensors of timm's `model.safetensors`, from the cache or, once, from the hub.

    Raises WeightsUnavailableError if the hub does not answer within PATIENCE_S and if the download
    fails, and CheckpointError for a damaged file.
    """
    find_on_hub(encoder)
    hosted = _hosted(encoder)
    path = _cached(hosted)
    if path is None:
        from huggingface_hub import hf_hub_download

        try:
            path = Path(
                hf_hub_download(
                    hosted.repository, _FILE, revision=hosted.revision, etag_timeout=PATIENCE_S
                )
            )
        except Exception as error:  # of the hub's client, the network and the disk
            raise _unavailable(encoder, hosted, reason(error)) from None
    return read_tensors(path)


def hub_provenance(encoder: EncoderSettings) -> Provenance:
    """What `fetch_from_hub` loaded, of the file in the cache."""
    hosted = _hosted(encoder)
    path = _cached(hosted)
    assert path is not None, "fetch_from_hub comes first"
    source = f"timm, {hosted.repository} at revision {path.parent.name[:12]}"
    return of_file(path, source, hosted.license)


def _hosted(encoder: EncoderSettings) -> _Hosted:
    import timm

    found: Any = timm.get_pretrained_cfg(encoder.name)
    if found is None or not found.hf_hub_id:
        base = encoder.name.split(".")[0]
        near = get_close_matches(base, timm.list_pretrained(), n=3)
        hint = f" It has {', '.join(near)}." if near else ""
        raise WeightsUnavailableError(
            f"timm has no pretrained weights of {encoder.name} on the Hugging Face hub.{hint} "
            "Set encoder.weights to the path of a local file, or to none for random weights."
        )
    repository, _, revision = found.hf_hub_id.partition("@")
    return _Hosted(repository, revision or None, found.license or UNKNOWN)


def _cached(hosted: _Hosted) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hosted.repository, _FILE, revision=hosted.revision)
    return Path(found) if isinstance(found, str) else None


def _no_hub(hosted: _Hosted) -> str | None:
    from huggingface_hub import constants, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    url = hf_hub_url(hosted.repository, _FILE, revision=hosted.revision)
    return no_answer(url, PATIENCE_S)


def _unavailable(
    encoder: EncoderSettings, hosted: _Hosted, problem: str
) -> WeightsUnavailableError:
    from huggingface_hub import constants

    package = package_of(encoder)
    hint = f" encoder.weights=packaged takes those of {package.name}." if package else ""
    return WeightsUnavailableError(
        f"timm's pretrained weights of {encoder.name} are not available from "
        f"{constants.ENDPOINT}/{hosted.repository}: {problem}. With a connection they are "
        f"downloaded once. Without: copy the folder models--"
        f"{hosted.repository.replace('/', '--')} from another machine into "
        f"{constants.HF_HUB_CACHE} (HF_HOME moves this cache), or set encoder.weights to the path "
        f"of a copy of its {_FILE}, or start from random weights with encoder.weights=none.{hint}"
    )
