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


class InstanceError(RegroupError):
    """A running CryoSPARC refused something or went away after the work had begun."""


class UnitError(RegroupError):
    """The computation of one piece of work failed; the message names the inputs it was working on."""


class DamagedStoreError(RegroupError):
    """What a run keeps for itself is damaged or missing.

    Parameters
    ----------
    message
        One sentence.
    position
        Which of the maps, in the order in which they take part.
    """

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message, position)
        self.position = position

    def __str__(self) -> str:
        return str(self.args[0])


class StoreError(RegroupError):
    """An object store does not answer, or answers with an error; what is finished is kept."""


class StoreAccessError(StoreError, InputError):
    """An object store refuses access, or has no such bucket."""


class FullDiskError(RegroupError):
    """The disk of an output is full: nothing is wrong with what was asked for, and it works once there is room."""


class RegroupWarning(UserWarning):
    """Something a person should know, and that does not stop the run; it is kept in run.json and the report."""
