"""Define errors that tell the reader what is wrong, where, the consequence, and the next step."""


class CompressorError(Exception):
    """A failure that the user can understand without a traceback; the command exits with 1.

    Args:
        what: One sentence: what is wrong.
        where: File, option, layer or source line it was found at.
        consequence: What was not done because of it; `usually` where nothing is given.
        next_step: What to do or type now.
    """

    exit_code = 1
    usually = "nothing was written; an earlier result is untouched"

    def __init__(
        self, what: str, *, where: str = "", consequence: str = "", next_step: str = ""
    ) -> None:
        self.what, self.where = what, where
        self.consequence, self.next_step = consequence or self.usually, next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  where: {self.where}"] if self.where else []
        lines += [f"  consequence: {self.consequence}"]
        lines += [f"  next: {self.next_step}"] if self.next_step else []
        return "\n".join(lines)


class UsageError(CompressorError):
    """A command or call that cannot be meant as it stands; the command exits with 2."""

    exit_code = 2
    usually = "nothing was done"
