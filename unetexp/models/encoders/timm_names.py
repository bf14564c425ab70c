"""Which names timm knows. timm is imported where it is used: it takes half a second."""

from __future__ import annotations

from functools import cache

from unetexp.errors import did_you_mean


@cache
def timm_names() -> frozenset[str]:
    """timm's models, each without and with the tags of its pretrained weights."""
    import timm

    return frozenset([*timm.list_models(), *timm.list_models(include_tags=True)])


def unknown_to_timm(name: str) -> str:
    """The sentence, without its path, for a name that is none of timm's."""
    import timm

    return (
        f"{name!r} is not a model of timm {timm.__version__}."
        f"{did_you_mean(name, sorted(timm_names()))} timm.list_models('*part*') lists them."
    )
