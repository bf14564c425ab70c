"""What is done to a model's probabilities and labels: tuned on validation, stored with it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from unetexp.component import Component

NAME = "postprocessing"


class Postprocessing(Component):
    """Temperature, thresholds and smallest components; all off by default."""

    temperature: float = Field(
        1.0, gt=0, description="logits are divided by it before they become probabilities"
    )
    thresholds: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default_factory=dict,
        description="by class: it has every pixel where its probability is at least this, and no "
        "other; where several classes reach theirs, the one that exceeds its own by the largest "
        "factor has the pixel",
    )
    minimum_px: dict[str, Annotated[int, Field(ge=2)]] = Field(
        default_factory=dict,
        description="by class: connected areas (8 neighbours) of fewer pixels become the most "
        "probable of the other classes",
    )

    @property
    def changes_labels(self) -> bool:
        """Whether labels are others than the most probable classes."""
        return bool(self.thresholds or self.minimum_px)

    def describe(self) -> str:
        """In a sentence; `none` where nothing is done."""
        parts = []
        if self.temperature != 1.0:
            parts.append(f"temperature {self.temperature:.3g}")
        parts += [f"{name} from {t:g} on" for name, t in self.thresholds.items()]
        parts += [f"{name} from {px} px on" for name, px in self.minimum_px.items()]
        return ", ".join(parts) or "none"
