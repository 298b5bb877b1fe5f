"""What an object store answers, in one sentence for the person who uses it."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Iterator
from typing import Any

from regroup_dask.errors import RegroupError, StoreAccessError, StoreError

REFUSED = (
    *("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "403", "401"),
    *("RequestTimeTooSkewed", "AccountProblem", "AllAccessDisabled", "AuthorizationHeaderMalformed", "Unauthorized"),
)
WITHOUT_CREDENTIALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError")
OF_STORES = ("botocore", "aiobotocore", "aiohttp", "s3fs", "fsspec", "gcsfs", "adlfs", "azure", "google", "urllib3")
"""Packages whose errors come from a store and not from this program."""
UNAVAILABLE = (errno.EBUSY, errno.EIO, getattr(errno, "EREMOTEIO", errno.EIO))
KEEPS = "what is finished is kept, and the same command with --resume goes on from there"


def explained(error: BaseException, path: str = "", *, outside: BaseException | None = None) -> RegroupError | None:
    """Return an error in one sentence, if it comes from a store; None if it does not, or says that a file is missing.

    Parameters
    ----------
    error
        Whatever was raised.
    path
        The URL that was used.
    outside
        What was being handled when the store was asked, and says nothing of its answer.
    """
    chain = _chain(error, outside)
    if any(isinstance(one, RegroupError) for one in chain):
        return next(one for one in chain if isinstance(one, RegroupError))
    from_store = [one for one in chain if type(one).__module__.split(".")[0] in OF_STORES]
    if not from_store:
        return None
    where = path or "The object store"
    codes = [_code(one) for one in chain]
    names = [type(one).__name__ for one in chain]
    text = " ".join(str(from_store[-1]).split())
    if "NoSuchBucket" in codes or "InvalidBucketName" in codes:
        return StoreAccessError(f"{where}: there is no such bucket: make it, or correct the name.")
    if any(name in WITHOUT_CREDENTIALS for name in names):
        return StoreAccessError(
            f"{where} needs credentials and there are none: give them with --storage-options, or in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY), of the workers too."
        )
    if any(code in REFUSED for code in codes) or any(isinstance(one, PermissionError) for one in chain):
        return StoreAccessError(
            f"{where}: the object store refuses access ({text}): check the credentials and what they allow; "
            f"{KEEPS}."
        )
    if any(isinstance(one, FileNotFoundError) for one in chain):
        return None
    return StoreError(f"{where}: the object store does not answer as it should, after several tries ({text}): {KEEPS}.")


@contextlib.contextmanager
def store_errors(path: str) -> Iterator[None]:
    """Turn errors of a store into sentences about this path; a missing file stays a `FileNotFoundError`."""
    outside = sys.exception()
    try:
        yield
    except RegroupError:
        raise
    except Exception as error:
        sentence = explained(error, path, outside=outside)
        if sentence is None:
            raise
        raise sentence from error


def _chain(error: BaseException | None, outside: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error is not outside and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def _code(error: Any) -> str:
    response = getattr(error, "response", None)
    described = response.get("Error", {}) if isinstance(response, dict) else {}
    return str(described.get("Code", ""))
