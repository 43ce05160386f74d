"""One writer of a run in a bucket: a lease that is one object, written on conditions that the server checks."""

from __future__ import annotations

from contextlib import suppress

from tunelab.archive import LEASE
from tunelab.errors import RunBusyError, StorageError
from tunelab.lease import Lease, clock, held
from tunelab.storage import NoConditionsError, S3Store, Version
from tunelab.terms import Terms

_WHOLE_SECONDS = 2.0  # what two times of a server that tells whole seconds can be off together
_ANOTHER_TAG = '"00000000000000000000000000000000"'  # of nothing that is ever there


class S3Lease(Lease):
    """A lease on a prefix of a bucket: one object, written on conditions only."""

    def __init__(self, terms: Terms, tag: str, store: S3Store, key: str, since: float) -> None:
        super().__init__(terms, store.url)
        # an answer that hangs must not use up the lease
        self._store = store.with_limits(timeout=terms.seconds / 6, attempts=2)
        self._key = key
        self._tag = tag
        self._since = since
        self._conditions = True

    @classmethod
    def take(cls, store: S3Store, key: str = LEASE, *, seconds: float = 60.0, above: int = 0) -> S3Lease:
        """Take the lease of a run in a bucket.

        One that is younger than its time, by the server's own clock, is left alone, unless its process is seen to be
        gone from this host.

        Args:
            store: the run's prefix.
            key: of the lease.
            seconds: without a renewal for so long, another process may take it.
            above: the fence is greater than this: that of the manifest, should the lease have been removed by hand.

        Raises:
            RunBusyError: another process holds it; says when it may be taken over.
            StorageError: the bucket cannot be read or written.
        """
        mine = Terms.first(seconds)
        for _ in range(4):  # each time another process was quicker, or the answer to our own request was lost
            since = clock()
            found = store.version(key)
            there = Terms.read(found.data) if found is not None else None
            if found is not None and there is not None and there.token == mine.token:
                return cls._taken(there, found.tag, store, key, since)
            if found is not None and (left := _left(found, there, seconds)) > 0:
                later = f"unless it goes on, it can be taken over in {left:.0f} s"
                raise RunBusyError(held(store.url, there, later))
            mine = mine.but(fence=max(above, there.fence if there is not None else 0) + 1)
            try:
                tag = store.put_if(key, mine.written(), found.tag if found is not None else "")
            except NoConditionsError:
                store.put(key, mine.written())
                tag = ""
            if tag is not None:
                return cls._taken(mine, tag, store, key, since)
        raise RunBusyError(held(store.url, there))

    @classmethod
    def _taken(cls, terms: Terms, tag: str, store: S3Store, key: str, since: float) -> S3Lease:
        lease = cls(terms, tag, store, key, since)
        try:
            lease._try_conditions()
        except BaseException:
            lease.release()
            raise
        lease._thread.start()
        return lease

    def release(self) -> None:
        """See :meth:`Lease.release`."""
        super().release()
        with self._turn:
            if self._lost is None and not self._terms.released:
                with suppress(StorageError):  # then it ends by itself
                    self._put(self._terms.but(released=True))

    def _try_conditions(self) -> None:
        """Two writes that a server with conditional writes refuses."""
        try:
            if not self._tag:
                raise NoConditionsError
            for tag in ("", _ANOTHER_TAG):
                if (put := self._store.put_if(self._key, self._terms.written(), tag)) is not None:
                    self._tag = put
                    raise NoConditionsError
        except NoConditionsError:
            self._conditions = False
            self.warning = (
                f"{self._where}: the server knows no conditional writes, so two searches of one name at the same time "
                "may not notice each other; start no second one"
            )

    def _check(self) -> None:
        if clock() - self._since > self._terms.seconds / 2:  # a renewal is overdue
            self._renew()

    def _renew(self) -> None:
        self._put(self._terms.but(renewed=self._terms.renewed + 1))

    def _put(self, terms: Terms) -> None:
        for _ in range(3):
            since = clock()
            tag = self._store.put_if(self._key, terms.written(), self._tag) if self._conditions else None
            if tag is None:
                found = self._store.version(self._key)
                there = Terms.read(found.data) if found is not None else None
                if found is None or there is None or there.token != self._terms.token:
                    self._lose(there)
                    return
                self._tag = found.tag  # written by this process, although the answer was lost
                if self._conditions:
                    continue
                self._store.put(self._key, terms.written())
            self._terms, self._tag, self._since = terms, tag or self._tag, since
            return
        raise StorageError(f"{self._where}/{self._key}: could not be renewed; something else writes to it")


def _left(found: Version, there: Terms | None, seconds: float) -> float:
    """Seconds after which a lease in a bucket may be taken over; none or less: now. One that is unreadable, too."""
    if there is not None and (there.released or there.owner.is_dead()):
        return 0.0
    return (there.seconds if there is not None else seconds) + _WHOLE_SECONDS - found.age
