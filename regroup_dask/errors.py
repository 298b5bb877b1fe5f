"""What can go wrong, as a small tree: the command line turns `InputError` into one sentence and exit code 2."""


class RegroupError(Exception):
    """Base of all errors of this package."""


class InputError(RegroupError):
    """An input or a setting cannot be used.

    The message is one sentence for the person who gave it: which file or option, which value, what limit, and
    what to do.
    """


class OutputExistsError(InputError):
    """The output folder exists already and neither resuming nor overwriting was asked for."""


class ClusterError(RegroupError):
    """The cluster could not be reached, has no workers, or lost a task for good."""


class RegroupWarning(UserWarning):
    """Something a person should know, and that does not stop the run; it is kept in run.json and the report."""
