"""What to do about a diagnosis: torch optimizers, wrappers and schedulers."""

__all__: tuple[str, ...] = ()
