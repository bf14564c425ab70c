"""Which exports a promotion is asked for, and which of them is used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unetexp.errors import ConfigError, not_a_choice
from unetexp.export.exporting import MAX_DROP, Request
from unetexp.export.formats import WRITERS, writer_of
from unetexp.runtimes.description import Format, Precision
from unetexp.runtimes.flavors import PYTORCH, chosen_file, flavor_named


@dataclass(frozen=True)
class ExportRequest:
    """What the command line asks for."""

    names: tuple[str, ...] = ()  # openvino-int8, ...
    flavor: str = PYTORCH  # what the registered model is used with
    max_drop: float = MAX_DROP  # points of mIoU that an export may lose

    @classmethod
    def of(cls, listed: str | None, flavor: str | None, max_drop: float | None) -> ExportRequest:
        """From `--export`, `--flavor` and `--max-drop`; ConfigError for a mistake in them."""
        if listed is None:
            given = {"--flavor": flavor, "--max-drop": max_drop}
            for option, value in given.items():
                if value not in (None, PYTORCH):
                    raise ConfigError(
                        f"{option} {value}: this needs --export, the exports that are registered "
                        "beside the weights."
                    )
            return cls()
        names = tuple(dict.fromkeys(_name(part) for part in listed.split(",")))
        chosen = chosen_file({name: name for name in names}, flavor or PYTORCH)
        return cls(names, chosen or PYTORCH, MAX_DROP if max_drop is None else max_drop)

    def require_installed(self) -> None:
        """UserError, with the extra that brings it, for a runtime that is missing here."""
        for name in self.names:
            writer_of(*_parts(name)).require_installed()

    def arguments(self) -> list[str]:
        """The options of the command line that ask for this."""
        if not self.names:
            return []
        flavor = [] if self.flavor == PYTORCH else ["--flavor", self.flavor]
        drop = [] if self.max_drop == MAX_DROP else ["--max-drop", f"{self.max_drop:g}"]
        return ["--export", ",".join(self.names), *flavor, *drop]

    @property
    def serves_weights(self) -> bool:
        return self.flavor == PYTORCH


def file_request(name: str, folder: Path) -> Request:
    """What writes the export `name` into `folder`, whatever it loses: that is a gate here."""
    target, precision = _parts(name)
    suffix = writer_of(target, precision).SUFFIX
    return Request(target, folder / f"{name}{suffix}", precision, max_drop=100.0)


def _name(part: str) -> str:
    named = flavor_named(part)
    known = ["-".join(each) for each in WRITERS]
    if named is None or "-".join(named) not in known:
        raise ConfigError(not_a_choice("--export", part.strip(), known))
    return "-".join(named)


def _parts(name: str) -> tuple[Format, Precision]:
    named = flavor_named(name)
    assert named is not None, "ExportRequest.of has checked it"
    return named
