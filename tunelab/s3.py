"""A prefix of an S3 bucket: asked with words instead of error codes, and as a store.

boto3 with its own sources for credentials (environment, profile, instance role), region and endpoint
(``AWS_ENDPOINT_URL``): nothing here takes a key, so nothing here can leak one. ``tunelab.data.s3source`` brings scans
by way of :class:`S3Prefix`, as :class:`S3Store` does with results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3ValidationError

from tunelab.errors import DataError, StorageError, UsageError
from tunelab.files import check_key, check_prefix, fault_of_key

FAILURES = (
    aws.BotoCoreError,
    aws.ClientError,
    ResponseParserError,
    RetriesExceededError,
    S3DownloadFailedError,
    S3ValidationError,
)
"""What boto3 and s3transfer raise when a request fails; :meth:`S3Prefix.explained` says it in words."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NO_CREDENTIALS = (
    aws.NoCredentialsError,
    aws.PartialCredentialsError,
    aws.CredentialRetrievalError,
    aws.ProfileNotFound,
    aws.TokenRetrievalError,
    aws.SSOError,
)
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
_DENIED = {"AccessDenied", "403", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "AllAccessDisabled"}
_ELSEWHERE = {"PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


class S3Prefix:
    """A prefix of a bucket, asked with the credentials of this machine; threads may share one.

    Args:
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
        timeout: seconds for one answer of the server, and a quarter of them for a connection.
        attempts: how often a request is sent before it is given up, with growing pauses between (1, 2, 4, ... at most
            20 seconds).
        connections: how many threads ask at once.
        use: what for; decides the rights and the remedies that messages name.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str,
        *,
        timeout: float,
        attempts: int,
        connections: int = 10,
        use: Literal["storage", "data"] = "storage",
    ) -> None:
        self.bucket = bucket
        self._prefix = prefix.strip("/")
        self._timeout = timeout
        self._attempts = attempts
        self._connections = connections
        self._use = use

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self._prefix}".rstrip("/")

    @cached_property
    def client(self) -> Any:
        """The boto3 client; safe to share among threads once it is made.

        Raises:
            StorageError: the profile that the environment names is unknown.
            UsageError: the endpoint is no URL.
        """
        config = Config(
            connect_timeout=self._timeout / 4,
            read_timeout=self._timeout,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
            max_pool_connections=self._connections,
            # A range's answer cannot be compared with the checksum of the whole; who reads ranges compares himself.
            response_checksum_validation="when_supported" if self._use == "storage" else "when_required",
        )
        try:
            # A session of our own: boto3's default one is shared, and making clients from it is not safe among threads.
            return boto3.session.Session().client("s3", config=config)
        except FAILURES as error:
            raise self.explained(error, "") from error
        except ValueError as error:  # what botocore raises for an endpoint that is no URL
            raise UsageError(f"AWS_ENDPOINT_URL: {error}; write it as https://host:port") from error

    def whole(self, key: str) -> str:
        """The key below the bucket of a key below the prefix.

        Raises:
            StorageError: the key could leave the prefix.
        """
        check_key(key, self.url)
        return f"{self._prefix}/{key}" if self._prefix else key

    def ask(self, verb: str, *, key: str = "", **fields: Any) -> Any:
        """One request, and boto3's answer.

        Args:
            verb: the method of boto3's client.
            key: below the bucket; empty for requests about the bucket.
            fields: the method's other arguments.

        Raises:
            StorageError: what went wrong, in words.
            UsageError: the endpoint is no URL.
        """
        if key:
            fields["Key"] = key
        try:
            return getattr(self.client, verb)(Bucket=self.bucket, **fields)
        except FAILURES as error:
            raise self.explained(error, key) from error

    def objects(self, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Every object below: its key, relative to the prefix, and what boto3 tells of it; keys are not checked.

        Raises:
            StorageError: as for :meth:`ask`.
        """
        below = f"{self._prefix}/" if self._prefix else ""
        more: dict[str, str] = {}
        while True:
            page = self.ask("list_objects_v2", Prefix=below + prefix, **more)
            for found in page.get("Contents", []):
                yield found["Key"][len(below) :], found
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def explained(self, error: Exception, key: str) -> DataError | StorageError:
        """What boto3 raised, as an error that names the object and the remedy.

        Args:
            error: one of :data:`FAILURES`.
            key: below the bucket.
        """
        where = f"s3://{self.bucket}/{key}".rstrip("/")
        storage = self._use == "storage"
        answer = error.response if isinstance(error, aws.ClientError) else {}
        code = str(answer.get("Error", {}).get("Code", ""))
        if isinstance(error, _NO_CREDENTIALS):
            say = "no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role"
        elif code == "NoSuchBucket":
            create = f"correct --storage, or create it: aws s3 mb s3://{self.bucket}"
            say = f"no such bucket; {create if storage else 'correct its name'}"
        elif not storage and (code in {"PreconditionFailed", "412"} or isinstance(error, S3DownloadFailedError)):
            return DataError(f"{where}: was replaced since it was listed; start again, once nothing writes there")
        elif not storage and code in {"NoSuchKey", "404"}:
            return DataError(f"{where}: was removed since it was listed; start again, once nothing writes there")
        elif code in {"NoSuchKey", "404"}:
            say = f"no such object; look with: aws s3 ls {self.url}/"
        elif code in _EXPIRED:
            say = f"the credentials have expired ({code}); renew them"
        elif code in _DENIED:
            rights = "s3:PutObject, s3:GetObject and s3:ListBucket" if storage else "s3:GetObject and s3:ListBucket"
            say = f"access denied ({code}); the credentials need {rights} here"
        elif code == "400":  # the answer to a HEAD, which has no body to say more
            say = "refused (400); the credentials may have expired: renew them, and check the region"
        elif code in _ELSEWHERE:
            say = f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to its region"
        elif code == "InvalidObjectState":
            say = "the object is archived; restore it first: aws s3api restore-object"
        elif code:
            times = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
            say = f"the server answered {code} ({times} attempts); try again later"
        elif isinstance(error, RetriesExceededError | S3ValidationError):
            sent = f"{self._attempts} attempts, {type(getattr(error, 'last_exception', error)).__name__}"
            say = f"did not arrive whole ({sent}); check the network and AWS_ENDPOINT_URL, and try again later"
        elif isinstance(error, aws.HTTPClientError | aws.ConnectionError):
            sent = f"{self._attempts} attempts, {type(error).__name__}"
            say = f"{self._server()} cannot be reached ({sent}); check the network and AWS_ENDPOINT_URL"
        else:
            said = re.sub(r"//[^/@\s]*@", "//", str(error))  # a URL can hold a password
            say = f"{type(error).__name__}: {said}; check the AWS configuration"
        return StorageError(f"{where}: {say}")

    def _server(self) -> str:
        # Host and port only, for the same reason.
        parts = urlsplit(self.client.meta.endpoint_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


class S3Store:
    """A prefix of an S3 bucket as a store.

    Args:
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
        timeout: seconds for one answer of the server, and a quarter of them for a connection.
        attempts: how often a request is sent before it is given up; see :class:`S3Prefix`.
    """

    def __init__(self, bucket: str, prefix: str = "", *, timeout: float = 30.0, attempts: int = 4) -> None:
        self._place = S3Prefix(bucket, prefix, timeout=timeout, attempts=attempts)

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return self._place.url

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`~tunelab.storage.Store.put`. One request (5 GiB at most): a broken one leaves no part behind."""
        self._place.ask("put_object", key=self._place.whole(key), Body=data)

    def get(self, key: str) -> bytes:
        """See :meth:`~tunelab.storage.Store.get`. The server's checksum is compared by boto3."""
        whole = self._place.whole(key)
        answer = self._place.ask("get_object", key=whole)
        try:
            return bytes(answer["Body"].read())
        except FAILURES as error:
            raise self._place.explained(error, whole) from error

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`~tunelab.storage.Store.list`. Objects whose names could not have been put here are left out."""
        check_prefix(prefix, self.url)
        return sorted(key for key, _ in self._place.objects(prefix) if fault_of_key(key) is None)


def parse_s3(url: str, field: str = "storage") -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``; the prefix has no slashes at its ends.

    Args:
        url: what was written.
        field: where it was written, for messages.

    Raises:
        UsageError: no bucket, a name that no bucket can have, a query, credentials, or a prefix with ``..``.
    """
    form = "write s3://bucket/prefix"
    if "@" in url.removeprefix("s3://").split("/")[0]:
        raise UsageError(f"{field}: credentials do not belong in a URL; {form} and set AWS_PROFILE")
    if not url.startswith("s3://"):
        raise UsageError(f"{field}: {url!r} is no S3 URL; {form}")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{field}: {url!r}: {bucket!r} is no bucket name (3 to 63 of a-z, 0-9, '.', '-'); {form}")
    if "?" in prefix or "#" in prefix:
        raise UsageError(f"{field}: {url!r}: options are not taken from the URL; {form} and set AWS_ENDPOINT_URL")
    prefix = prefix.strip("/")
    if prefix and (fault := fault_of_key(prefix)):
        raise UsageError(f"{field}: {url!r}: the prefix {fault}; {form}")
    return bucket, prefix
