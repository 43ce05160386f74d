"""A prefix of an S3 bucket, asked with words instead of error codes. What a store is, it does not know.

boto3 with its own sources for credentials (environment, profile, instance role), region and, where none is given,
endpoint (``AWS_ENDPOINT_URL``): nothing here takes a key, so nothing here can leak one. Scans come by way of
:class:`S3Prefix` (``tunelab.data.s3source``), and results go (:class:`tunelab.storage.S3Store`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as aws
from botocore.config import Config
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError, S3ValidationError

from tunelab.errors import DataError, StorageError, UsageError
from tunelab.files import check_key, fault_of_key

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


@dataclass(frozen=True, kw_only=True, slots=True)
class S3Options:
    """How the server of the results is reached and told to encrypt; the same for every bucket. Holds no secret."""

    endpoint: str = ""
    """``https://host:port`` of another server than Amazon's; empty: as the environment says."""
    sse: str = ""
    """Encryption asked for with every object: ``AES256``, ``aws:kms``, or empty for what the bucket does by itself."""
    kms_key: str = ""
    """Id, alias or ARN of the key for ``aws:kms``; empty for the account's own."""

    def __post_init__(self) -> None:
        if self.endpoint and (fault := _fault_of_endpoint(self.endpoint)):
            raise UsageError(f"--s3-endpoint: {fault}; write http://host:port or https://host")
        if self.sse not in ("", "AES256", "aws:kms"):
            raise UsageError(f"--s3-sse: {self.sse!r} is no encryption of S3; write AES256 or aws:kms")
        if self.kms_key and self.sse != "aws:kms":
            raise UsageError(f"--s3-kms-key: {self.kms_key!r} is used with aws:kms only; add --s3-sse aws:kms")
        if self.kms_key and not re.fullmatch(r"[A-Za-z0-9:/_.-]{1,2048}", self.kms_key):
            raise UsageError(f"--s3-kms-key: {self.kms_key[:100]!r} is no id, alias or ARN of a key; write one")

    def of_put(self) -> dict[str, str]:
        """What is sent along with every object that is put."""
        fields = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.kms_key}
        return {name: value for name, value in fields.items() if value}


AS_THE_ENVIRONMENT_SAYS = S3Options()


def _fault_of_endpoint(endpoint: str) -> str | None:
    if "@" in endpoint:  # not shown: what stands before it may be a password
        return "credentials do not belong in a URL; set AWS_PROFILE"
    try:
        parts = urlsplit(endpoint)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and parts.path in ("", "/")
    except ValueError:  # a port that is no number
        good = False
    return None if good and not re.search(r"[?#\s]", endpoint) else f"{endpoint!r} is no URL of a server"


def code_of(error: BaseException | None) -> str:
    """The code that the server answered with, such as ``NoSuchKey``; empty when it did not answer."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, aws.ClientError) else ""


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
        s3: endpoint and encryption.
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
        s3: S3Options = AS_THE_ENVIRONMENT_SAYS,
    ) -> None:
        self.bucket = bucket
        self._below = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._timeout = timeout
        self._attempts = attempts
        self._connections = connections
        self._use = use
        self._s3 = s3
        self._named = "--s3-endpoint" if s3.endpoint else "AWS_ENDPOINT_URL"

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self._below}".rstrip("/")

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
            return boto3.session.Session().client("s3", config=config, endpoint_url=self._s3.endpoint or None)
        except FAILURES as error:
            raise self.explained(error, "") from error
        except ValueError as error:  # what botocore raises for an endpoint that is no URL
            raise UsageError(f"{self._named}: {_without_password(error)}; write it as https://host:port") from error

    def whole(self, key: str) -> str:
        """The key below the bucket of a key below the prefix.

        Raises:
            StorageError: the key could leave the prefix.
        """
        check_key(key, self.url)
        return self._below + key

    def ask(self, verb: str, *, key: str = "", none_for: Collection[str] = (), **fields: Any) -> Any:
        """One request, and boto3's answer.

        Args:
            verb: the method of boto3's client.
            key: below the bucket; empty for requests about the bucket.
            none_for: codes of the server that are an answer, too: None.
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
            if code_of(error) in none_for:
                return None
            raise self.explained(error, key) from error

    def objects(self, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Every object below: its key, relative to the prefix, and what boto3 tells of it; keys are not checked.

        Raises:
            StorageError: as for :meth:`ask`.
        """
        for page in self._pages(Prefix=self._below + prefix):
            for found in page.get("Contents", []):
                yield found["Key"][len(self._below) :], found

    def folders(self) -> Iterator[str]:
        """The first parts of all keys that have several, without listing what is below them; not checked.

        Raises:
            StorageError: as for :meth:`ask`.
        """
        for page in self._pages(Prefix=self._below, Delimiter="/"):
            for found in page.get("CommonPrefixes", []):
                yield found["Prefix"][len(self._below) : -1]

    def _pages(self, **fields: str) -> Iterator[dict[str, Any]]:
        more: dict[str, str] = {}
        while True:
            page = self.ask("list_objects_v2", **fields, **more)
            yield page
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
        code = code_of(error)
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
            kms = ", and kms:GenerateDataKey and kms:Decrypt for the key" if self._s3.sse == "aws:kms" else ""
            put = f"s3:PutObject, s3:GetObject, s3:DeleteObject and s3:ListBucket{kms}"
            need = put if storage else "s3:GetObject and s3:ListBucket"
            say = f"access denied ({code}); the credentials need {need} here"
        elif code == "400":  # the answer to a HEAD, which has no body to say more
            say = "refused (400); the credentials may have expired: renew them, and check the region"
        elif code in _ELSEWHERE:
            say = f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to its region"
        elif code == "InvalidObjectState":
            say = "the object is archived; restore it first: aws s3api restore-object"
        elif code:
            times = getattr(error, "response", {}).get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
            say = f"the server answered {code} ({times} attempts); try again later"
        elif isinstance(error, RetriesExceededError | S3ValidationError):
            sent = f"{self._attempts} attempts, {type(getattr(error, 'last_exception', error)).__name__}"
            say = f"did not arrive whole ({sent}); check the network and {self._named}, and try again later"
        elif isinstance(error, aws.HTTPClientError | aws.ConnectionError):
            sent = f"{self._attempts} attempts, {type(error).__name__}"
            say = f"{self._server()} cannot be reached ({sent}); check the network and {self._named}"
        else:
            say = f"{type(error).__name__}: {_without_password(error)}; check the AWS configuration"
        return StorageError(f"{where}: {say}")

    def _server(self) -> str:
        # Host and port only, for the same reason.
        parts = urlsplit(self.client.meta.endpoint_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _without_password(error: Exception) -> str:
    return re.sub(r"//[^/@\s]*@", "//", str(error))  # a URL can hold one


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
