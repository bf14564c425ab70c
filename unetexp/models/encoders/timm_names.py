"""Which names timm knows. timm is imported where it is used: it takes half a second."""

from __future__ import annotations

from functools import cache

from unetexp.errors import did_you_mean


@cache
def timm_names() -> frozenset[str]:
    """timm's models, each without and with the tags of its pretrained weights."""
    import timm

    return frozenset([*timm.list_models(), *timm.list_models(include_tags=True)])


@cache
def vit_names() -> frozenset[str]:
    """timm's plain Vision Transformers, likewise."""
    import timm

    modules = {"vision_transformer": "", "deit": "", "eva": "dinov3"}
    return frozenset(
        name
        for module, part in modules.items()
        for tags in (False, True)
        for name in timm.list_models(module=module, include_tags=tags)
        if part in name
    )


def unknown_to_timm(name: str) -> str:
    """The sentence, without its path, for a name that is none of timm's."""
    import timm

    return (
        f"{name!r} is not a model of timm {timm.__version__}."
        f"{did_you_mean(name, sorted(timm_names()))} timm.list_models('*part*') lists them."
    )
