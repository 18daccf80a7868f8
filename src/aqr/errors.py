"""The one exception that stands for a user's mistake rather than ours."""


class InputError(Exception):
    """Input that cannot be used: one sentence that says what, where, and the mend.

    The CLI prints the sentence and exits with code 2; library callers catch it like any exception.
    """
