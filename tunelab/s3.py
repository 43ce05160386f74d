"""A prefix of an S3 bucket as a store.

boto3 with its own sources for credentials (environment, profile, instance role) and endpoint (``AWS_ENDPOINT_URL``):
nothing here takes a key, so nothing here can leak one.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore import exceptions as aws
from botocore.config import Config

from tunelab.errors import StorageError, UsageError
from tunelab.files import check_key, check_prefix, fault_of_key

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


class S3Store:
    """A prefix of an S3 bucket.

    Args:
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
        timeout: seconds for one answer of the server, and a quarter of them for a connection.
        attempts: how often a request is sent before it is given up, with growing pauses between (1, 2, 4, ... at most
            20 seconds).
    """

    def __init__(self, bucket: str, prefix: str = "", *, timeout: float = 30.0, attempts: int = 4) -> None:
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._timeout = timeout
        self._attempts = attempts

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`~tunelab.storage.Store.put`. One request (5 GiB at most): a broken one leaves no part behind."""
        self._ask("put_object", key=self._key(key), Body=data)

    def get(self, key: str) -> bytes:
        """See :meth:`~tunelab.storage.Store.get`. The server's checksum is compared by boto3."""
        whole = self._key(key)
        answer = self._ask("get_object", key=whole)
        try:
            return bytes(answer["Body"].read())
        except (aws.BotoCoreError, aws.ClientError) as error:
            raise self._explained(error, whole) from error

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`~tunelab.storage.Store.list`. Objects whose names could not have been put here are left out."""
        check_prefix(prefix, self.url)
        below = f"{self._prefix}/" if self._prefix else ""
        keys: list[str] = []
        more: dict[str, str] = {}
        while True:
            page = self._ask("list_objects_v2", Prefix=below + prefix, **more)
            keys += [found["Key"][len(below) :] for found in page.get("Contents", [])]
            if not page.get("IsTruncated"):
                return sorted(key for key in keys if fault_of_key(key) is None)
            more = {"ContinuationToken": page["NextContinuationToken"]}

    @cached_property
    def _client(self) -> Any:
        config = Config(
            connect_timeout=self._timeout / 4,
            read_timeout=self._timeout,
            retries={"mode": "standard", "total_max_attempts": self._attempts},
        )
        # A session of our own: boto3's default one is shared, and making clients from it is not safe among threads.
        return boto3.session.Session().client("s3", config=config)

    def _key(self, key: str) -> str:
        check_key(key, self.url)
        return f"{self._prefix}/{key}" if self._prefix else key

    def _ask(self, verb: str, *, key: str = "", **fields: Any) -> Any:
        if key:
            fields["Key"] = key
        try:
            return getattr(self._client, verb)(Bucket=self._bucket, **fields)
        except (aws.BotoCoreError, aws.ClientError) as error:
            raise self._explained(error, key) from error
        except ValueError as error:  # what botocore raises for an endpoint that is no URL
            raise UsageError(f"AWS_ENDPOINT_URL: {error}; write it as https://host:port") from error

    def _explained(self, error: Exception, key: str) -> StorageError:
        where = f"s3://{self._bucket}/{key}".rstrip("/")
        answer = error.response if isinstance(error, aws.ClientError) else {}
        code = str(answer.get("Error", {}).get("Code", ""))
        if isinstance(error, _NO_CREDENTIALS):
            say = "no credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role"
        elif code == "NoSuchBucket":
            say = f"no such bucket; correct --storage, or create it: aws s3 mb s3://{self._bucket}"
        elif code in {"NoSuchKey", "404"}:
            say = f"no such object; look with: aws s3 ls {self.url}/"
        elif code in _EXPIRED:
            say = f"the credentials have expired ({code}); renew them"
        elif code in _DENIED:
            say = f"access denied ({code}); the credentials need s3:PutObject, s3:GetObject and s3:ListBucket here"
        elif code in _ELSEWHERE:
            say = f"the bucket is in another region ({code}); set AWS_DEFAULT_REGION to its region"
        elif code:
            times = answer.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
            say = f"the server answered {code} ({times} attempts); try again later"
        elif isinstance(error, aws.HTTPClientError | aws.ConnectionError):
            sent = f"{self._attempts} attempts, {type(error).__name__}"
            say = f"{self._server()} cannot be reached ({sent}); check the network and AWS_ENDPOINT_URL"
        else:
            said = re.sub(r"//[^/@\s]*@", "//", str(error))  # a URL can hold a password
            say = f"{type(error).__name__}: {said}; check the AWS configuration"
        return StorageError(f"{where}: {say}")

    def _server(self) -> str:
        # Host and port only, for the same reason.
        parts = urlsplit(self._client.meta.endpoint_url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def parse_s3(url: str) -> tuple[str, str]:
    """Bucket and prefix of ``s3://bucket/prefix``; the prefix has no slashes at its ends.

    Raises:
        UsageError: no bucket, a name that no bucket can have, a query, credentials, or a prefix with ``..``.
    """
    form = "write s3://bucket/prefix"
    if "@" in url.removeprefix("s3://").split("/")[0]:
        raise UsageError(f"storage: credentials do not belong in a URL; {form} and set AWS_PROFILE")
    if not url.startswith("s3://"):
        raise UsageError(f"storage: {url!r} is no S3 URL; {form}")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"storage: {url!r}: {bucket!r} is no bucket name (3 to 63 of a-z, 0-9, '.', '-'); {form}")
    if "?" in prefix or "#" in prefix:
        raise UsageError(f"storage: {url!r}: options are not taken from the URL; {form} and set AWS_ENDPOINT_URL")
    prefix = prefix.strip("/")
    if prefix and (fault := fault_of_key(prefix)):
        raise UsageError(f"storage: {url!r}: the prefix {fault}; {form}")
    return bucket, prefix
