"""The root of the project's exceptions, here because the physics is the lowest layer that raises them."""


class DipmedError(Exception):
    """Anything that the user can act on: says what was expected, what came, and what to do."""


class ShapeError(DipmedError, ValueError):
    """An array whose shape or kind does not fit the operator or the file it was given to."""
