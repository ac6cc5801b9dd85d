"""What may be changed about the fast transformer's memory without changing what it computes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DitKnobs:
    """Exact knobs: they bound memory, and the result stays the same but for the rounding of other matrix shapes.

    mlp_rows: rows at once through the MLP, whose middle is the widest activation; None for all.
    attention_rows: packed rows whose q, k and v exist at once, rounded up to whole windows; None for all.
    streamed_weights: the matrices stay in pinned host memory, and two blocks of them are on the GPU at a time; the
    next one is copied while one computes. The result is the same to the bit.
    """

    mlp_rows: int | None = None
    attention_rows: int | None = None
    streamed_weights: bool = False

    def __post_init__(self) -> None:
        for name in ("mlp_rows", "attention_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, not {value}")
