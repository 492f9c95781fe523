"""The right to erasure: a subject's rows, files, statistics and key go, and a signed report says so.

Every step may be repeated. What an erasure has come to is kept in the vault, so that one whose process was killed is
taken up where it was by asking for the same again; the key goes last, since the tokens are found by it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlaas.errors import InvalidInputError, LakeError, RetryableError
from rlaas.lake.committer import Committer
from rlaas.lake.datasets import replace_datasets
from rlaas.lake.privacy.databases import clean_database
from rlaas.lake.privacy.guard import ProtectedLake
from rlaas.lake.privacy.needles import Needles, check_subject
from rlaas.lake.privacy.policy import token_of
from rlaas.lake.privacy.reports import sign_report, write_report
from rlaas.lake.privacy.rewriting import delete, find, forget_history, is_append_only, overtake_writers, table_folders
from rlaas.lake.privacy.scan import Scan, holds, live_files, scan
from rlaas.lake.privacy.vault import Erasure
from rlaas.lake.schemas import TABLES
from rlaas.settings import Settings

__all__ = ["Eraser"]

_ROUNDS = 4
"""A writer that began before may leave something behind a round; one that goes on for so many is not ours."""
_POLL_S = 0.25
_OURS = ("state.db", "mlflow.db")
"""Databases whose documents stay, with a label in the place of the subject; any other is made from the lake."""
_SQLITE = b"SQLite format 3\0"


class Eraser:
    """Erases subjects of one tenant from everything that lies below the installation's home.

    Args:
        settings: of the process.
        lake: with the vault and the gate of the installation.
        trained: for every model, the Delta versions by table that it was trained on.
        also: further folders with tables: archives that lie outside of the lake.
        wait_s: how long running Gateways may take to hand over what they have logged, seconds.

    Raises:
        InvalidInputError: the lake is not a local folder.
    """

    def __init__(
        self,
        settings: Settings,
        lake: ProtectedLake,
        *,
        trained: Mapping[str, Mapping[str, int]],
        also: Sequence[Path] = (),
        wait_s: float = 30.0,
    ) -> None:
        if not lake.is_local:
            raise InvalidInputError(
                f"the lake lies at {lake.root}; files can be erased and scanned in a local folder only",
                field="lake_url",
            )
        self._settings, self._lake, self._vault = settings, lake, lake.vault
        self._trained, self._wait_s = trained, wait_s
        self._root, self._also = Path(lake.root), tuple(Path(folder).absolute() for folder in also)

    def look(self, subject: str) -> dict[str, Any]:
        """What :meth:`erase` would do; changes nothing.

        Raises:
            InvalidInputError: the id is too short to be told from other bytes.
            LakeError: a table or file is damaged.
        """
        filed = self._vault.filed(check_subject(subject))
        past = self._vault.erasures(filed)
        begun = past[-1] if past and past[-1].finished_us is None else None
        key = begun.key if begun else self._vault.key(filed)
        needles = self._with_decisions(self._needles(subject, key, begun.traces or () if begun else ()))
        found = {name: find(folder, needles, tenant=self._lake.tenant) for name, folder in self._tables()}
        models, unknown = self._models(needles)
        return {
            "subject": filed,
            "rows": {name: one.rows for name, one in found.items() if one.rows},
            "models": models,
            "models_unknown": unknown,
            "key": key is not None,
            "files": [str(path) for path in self._scan(needles).hits],
        }

    def erase(self, subject: str) -> dict[str, Any]:
        """Erase, or go on with an erasure that was cut off; returns the signed report, which is written too.

        ``clean`` in it says whether the scan found no byte; where it did, the erasure stays open and may be repeated.

        Raises:
            InvalidInputError: the id is too short to be told from other bytes.
            ConflictError: another committer is at work.
            RetryableError: a database, or a Gateway's log, is held by somebody else.
            LakeError: a table, segment or file is damaged.
        """
        filed = self._vault.filed(check_subject(subject))
        self._write_missing(filed, subject)
        erasure = self._vault.begin(filed)
        findings: dict[str, Any] = {"rows": {}, "pending": {}, "databases": {}, "files_removed": 0, **erasure.findings}
        needles = self._needles(subject, erasure.key, erasure.traces or ())
        with self._lake.gate.alone():
            pass  # whoever let the subject in has written it
        self._drain(needles)
        needles = self._traced(erasure, needles, findings)
        if "models" not in findings:  # later the versions they were trained on cannot be read
            findings["models"], findings["models_unknown"] = self._models(needles)
            self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)
        seen = Scan(0, 0, ())
        for _ in range(_ROUNDS):
            needles = self._traced(erasure, needles, findings)
            self._replace_datasets(erasure, needles, findings)
            self._clean_tables(erasure, needles, findings)
            self._clean_databases(needles, findings)
            seen = self._scan(needles)
            if not seen.hits:
                break
        findings["scan"] = {
            "files": seen.files,
            "bytes": seen.size,
            "hits": [str(path) for path in seen.hits],
            "looked_for": {"ids": 1, "tokens": len(needles.texts) - 1},
        }
        findings["keys_destroyed"] = int(erasure.key is not None) if not seen.hits else 0
        if seen.hits:
            self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)
            return self._report(self._vault.erasures(filed)[-1])
        self._vault.finish(erasure, findings)
        self._vault.scrub()
        self._check_vault(erasure, needles)
        return self._report(self._vault.erasures(filed)[-1])

    def _needles(self, subject: str, key: bytes | None, decisions: tuple[str, ...]) -> Needles:
        return Needles([subject, *([] if key is None else [token_of(key, subject)])], decisions)

    def _with_decisions(self, needles: Needles) -> Needles:
        plain = Needles(needles.texts)
        for _, folder in self._tables():
            needles = needles.with_decisions(find(folder, plain, tenant=self._lake.tenant).decisions)
        return needles

    def _traced(self, erasure: Erasure, needles: Needles, findings: dict[str, Any]) -> Needles:
        """With every decision of the subject; from then on nothing that arrives for one is let in."""
        needles = self._with_decisions(needles)
        self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)
        self._vault.note_decisions(needles.decisions)
        return needles

    def _drain(self, needles: Needles) -> None:
        """Commit the write-ahead log until no file of it holds the subject; the committer leaves their rows out."""
        committer = Committer(self._lake, self._settings.wal_root, tenant=self._lake.tenant)
        deadline = time.monotonic() + self._wait_s
        while True:
            committer.run_once()
            left = [path for path in self._logs() if _holds(path, needles)]
            if not left:
                return
            if time.monotonic() >= deadline:
                raise RetryableError(
                    f"{left[0]} still holds the subject after {self._wait_s:g} s: its producer has not handed it over; "
                    "try again, or stop the producer first",
                    field="wait",
                )
            time.sleep(_POLL_S)

    def _logs(self) -> Iterator[Path]:
        yield from live_files([self._settings.wal_root / self._lake.tenant], tenant=self._lake.tenant)

    def _models(self, needles: Needles) -> tuple[list[str], list[str]]:
        """Models that saw a row of the subject, and models of whom nobody can say any more."""
        folders = dict(self._tables())
        known: dict[tuple[str, int], bool | None] = {}
        for versions in self._trained.values():
            for table, version in versions.items():
                if (table, version) not in known:
                    known[table, version] = self._held(folders.get(table), version, needles)
        answers = {
            model: [known[table, version] for table, version in versions.items()]
            for model, versions in self._trained.items()
        }
        return (
            sorted(model for model, seen in answers.items() if any(seen)),
            sorted(model for model, seen in answers.items() if not any(seen) and None in seen),
        )

    def _held(self, folder: Path | None, version: int, needles: Needles) -> bool | None:
        if folder is None:
            return None
        try:
            return find(folder, needles, tenant=self._lake.tenant, version=version).rows > 0
        except LakeError:  # that version is no longer there
            return None

    def _replace_datasets(self, erasure: Erasure, needles: Needles, findings: dict[str, Any]) -> None:
        def matches(column: pa.ChunkedArray) -> pa.Array:
            return needles.matches(column).combine_chunks()

        done = replace_datasets(self._lake, matches, f"rows were erased, see erasure {erasure.subject[:16]}")
        findings["datasets"] = [*findings.get("datasets", []), *done]
        self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)

    def _tables(self) -> Iterator[tuple[str, Path]]:
        yield from table_folders(self._root)
        for folder in self._also:
            yield from ((f"{folder.name}.{name}", path) for name, path in table_folders(folder))

    def _clean_tables(self, erasure: Erasure, needles: Needles, findings: dict[str, Any]) -> None:
        tenant, rows, pending = self._lake.tenant, findings["rows"], findings["pending"]
        for name, folder in self._tables():
            declared = TABLES[name].append_only if name in TABLES else is_append_only(folder)
            found = find(folder, needles, tenant=tenant)
            if found.rows:
                # Noted first: where a kill follows the deletion, nobody could count any more.
                pending[name] = found.rows
                self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)
                with self._lake.gate.alone():  # who appends to the same partition would be refused, or refuse us
                    delete(folder, found, needles, tenant=tenant, append_only=declared)
            elif declared and not is_append_only(folder):
                # A process died before it was on again.
                delete(folder, found, needles, tenant=tenant, append_only=True)
            if name in pending:
                rows[name] = rows.get(name, 0) + pending.pop(name)
                self._vault.save(erasure, traces=sorted(needles.decisions), findings=findings)
            if found.rows or self._scan(needles, [folder]).hits:
                with self._lake.gate.alone():
                    findings["files_removed"] += forget_history(folder, needles)
            elif needles.decisions:
                with self._lake.gate.alone():
                    overtake_writers(folder)  # a join that has read them and not written yet

    def _clean_databases(self, needles: Needles, findings: dict[str, Any]) -> None:
        cells = findings["databases"]
        for path in live_files(self._roots(), tenant=self._lake.tenant):
            if path == self._vault.file or not _is_sqlite(path):
                continue
            changed = clean_database(path, needles, delete_rows=path.name not in _OURS)
            if changed:
                cells[path.name] = cells.get(path.name, 0) + changed

    def _roots(self) -> list[Path]:
        """Folders and databases that are looked through."""
        home = self._settings.home
        others = [self._root, *self._also, *(path for _, path in self._places() if path is not None)]
        return [home, *(path for path in dict.fromkeys(others) if not path.is_relative_to(home))]

    def _places(self) -> list[tuple[str, Path | None]]:
        """Every other store, and where it lies; None where that is not on this machine's disk."""
        settings = self._settings
        stores = {
            "artifacts": settings.artifact_root,
            "features": settings.features_database,
            "mlflow": settings.tracking_uri,
            "state": settings.state_database,
            "vault": settings.privacy_database,
        }
        return [(name, _on_disk(url)) for name, url in stores.items()]

    def _scan(self, needles: Needles, roots: list[Path] | None = None) -> Scan:
        # The vault holds the decisions to look for until the erasure is finished; it is looked at after that.
        roots = self._roots() if roots is None else roots
        return scan(roots, needles, tenant=self._lake.tenant, without=self._vault.file)

    def _check_vault(self, erasure: Erasure, needles: Needles) -> None:
        """The key and what was looked for must be gone from the vault too."""
        file = self._vault.file
        for path in () if file is None else (file, file.with_name(f"{file.name}-wal")):
            data = path.read_bytes() if path.exists() else b""
            if needles.inside(data) or (erasure.key is not None and erasure.key in data):
                raise RetryableError(
                    f"{path} still holds what was deleted: another process reads it; try again", field="subject"
                )

    def _report(self, erasure: Erasure) -> dict[str, Any]:
        findings = erasure.findings
        document = {
            "schema_version": 1,
            "kind": "erasure",
            "tenant": self._lake.tenant,
            "subject": erasure.subject,
            "number": erasure.number,
            "erased_us": erasure.erased_us,
            "finished_us": erasure.finished_us,
            "clean": erasure.finished_us is not None,
            "rows": findings["rows"],
            "databases": findings["databases"],
            "files_removed": findings["files_removed"],
            "keys_destroyed": findings["keys_destroyed"],
            "models": findings["models"],
            "models_unknown": findings["models_unknown"],
            "datasets": findings.get("datasets", []),
            "scan": findings["scan"],
            # Stores that no file scan can reach: who runs them has to answer for them.
            "not_scanned": sorted(name for name, path in self._places() if path is None),
        }
        report = sign_report(document, self._vault)
        write_report(self.report_file(erasure), report)
        return report

    def latest_report(self, subject: str) -> Path:
        """Where the report of a subject's latest erasure lies."""
        return self.report_file(self._vault.erasures(self._vault.filed(subject))[-1])

    def report_file(self, erasure: Erasure) -> Path:
        """Where the report of an erasure lies."""
        folder = self._settings.home / "erasures" / self._lake.tenant
        return folder / f"{erasure.subject[:16]}-{erasure.number}.json"

    def _write_missing(self, filed: str, subject: str) -> None:
        """Reports of erasures whose process was killed right before the last step."""
        for erasure in self._vault.erasures(filed):
            if erasure.finished_us is not None and not self.report_file(erasure).exists():
                self._vault.scrub()
                self._check_vault(erasure, Needles([subject]))
                self._report(erasure)


def _on_disk(url: str) -> Path | None:
    """The file or folder that a URL names."""
    for scheme in ("sqlite:///", "file://"):
        if url.startswith(scheme):
            return Path(url.removeprefix(scheme)).absolute()
    return None if "://" in url else Path(url).absolute()


def _is_sqlite(path: Path) -> bool:
    with suppress(FileNotFoundError), path.open("rb") as file:
        return file.read(16) == _SQLITE
    return False


def _holds(path: Path, needles: Needles) -> bool:
    with suppress(FileNotFoundError):  # committed meanwhile
        return holds(path, needles)
    return False
