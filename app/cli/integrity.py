"""`integrity`: receipts verified, the ledger sealed and audited, and receipts proved to whoever has no database."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO
from uuid import UUID

import click

from app.bootstrap import Services, build_reconciliation_service, build_sealing_service
from app.cli.command import Group
from app.cli.console import json_option, make_table, numeric, print_json, print_table, progress_bar
from app.cli.services import open_services
from app.config import LEDGER_KEY_SECRET, load_settings
from app.errors import ConfigurationError, InvalidRequest, NexusError
from app.integrity.heads import SignedHead, Signer, check_chain
from app.integrity.proofs import check_receipt, head_from_json, head_to_json, proof_to_json, whole_number
from app.integrity.service import ReceiptClaim, Verdict
from app.reconcile.drift import Drift

_WRONG = {"missing", "altered", "stale"}
"""Verdicts that are named one by one and make the exit status 1: what no legal act leads to."""

_RECEIPTS_A_STEP = 1000
_NEEDED = {"episode_id", "version", "content_sha256", "nonce"}


@click.group(cls=Group)
def integrity() -> None:
    """Proof: verify receipts, seal the ledger, check it, with or without a database."""


def _receipts(file: TextIO) -> Iterator[dict[str, Any]]:
    """Yield the receipts of a file: one JSON object a line, as the API answered, whether for one episode or for a batch."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except (ValueError, RecursionError):
            value = None
        found = value["items"] if isinstance(value, dict) and isinstance(value.get("items"), list) else [value]
        if not all(isinstance(receipt, dict) and receipt.keys() >= _NEEDED for receipt in found):
            raise InvalidRequest(f"line {number} of {file.name} is not a receipt")
        yield from found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object of a file that names each field once: of two, readers would choose differently.

    Raises:
        ValueError: It names one twice.
    """
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a field is named twice")
    return value


def _number(value: Any) -> int:
    """Return a number as a receipt has one.

    Raises:
        ValueError: PostgreSQL has none like it.
    """
    if not 0 < (number := whole_number(value)) < 2**63:
        raise ValueError(f"{number} is out of range")
    return number


def _claim(receipt: dict[str, Any]) -> ReceiptClaim:
    try:
        return ReceiptClaim(
            episode_id=UUID(str(receipt["episode_id"])),
            seq=_number(receipt["seq"]),
            version=_number(receipt["version"]),
            content_sha256=bytes.fromhex(receipt["content_sha256"]).hex(),
            nonce=UUID(hex=str(receipt["nonce"])).hex,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidRequest(f"a receipt is malformed: {error}") from error


_receipts_file = click.argument(
    "receipts", type=click.File("r", encoding="utf-8"), help="File of receipts, one JSON object a line; - for stdin."
)


@integrity.command(
    exits={1: "Something is missing, altered or stale, or Redis holds something else (named on stderr); or another error."},
    examples=["integrity verify", "integrity verify receipts.ndjson --json"],
)
@click.argument(
    "receipts", type=click.File("r", encoding="utf-8"), required=False, help="File of receipts, one JSON object a line; - for stdin."
)
@json_option
def verify(receipts: TextIO | None, as_json: bool) -> None:
    """Say what became of each receipt of a file, or, without one, verify everything.

    Everything is: each episode against the ledger and its vectors, the ledger against its signed heads, each working memory against
    Redis, and each semantic memory against its vector.
    """
    services = open_services()
    if receipts is None:
        summary, lost, others = _verify_everything(services)
        verdicts = lost
    else:
        claims = [_claim(receipt) for receipt in _receipts(receipts)]
        if not claims:
            raise InvalidRequest(f"{receipts.name} holds no receipt, so nothing is verified")
        verdicts, others = [], []
        with progress_bar("receipts", len(claims)) as advance:
            for step in _steps(claims):
                verdicts.extend(services.integrity.verify_receipts(None, step))
                advance(len(step))
        summary = Counter(verdict.verdict for verdict in verdicts)
        lost = [verdict for verdict in verdicts if verdict.verdict in _WRONG]
    if as_json:
        print_json({"verdicts": verdicts, "summary": summary, "problems": others})
    else:
        _print_summary(summary, lost)
        for problem in others:
            click.echo(problem, err=True)
    if lost or others:
        sys.exit(1)


def _verify_everything(services: Services) -> tuple[Counter[str], list[Verdict], list[str]]:
    """Return how many episodes there are of each verdict, those that are wrong, and what else is, one sentence each."""
    summary: Counter[str] = Counter()
    lost = []
    with progress_bar("episodes", services.integrity.identity().accepted) as advance:
        for verdict in services.integrity.verify_all(advance):
            summary[verdict.verdict] += 1
            if verdict.verdict in _WRONG:
                lost.append(verdict)
    others = services.proofs.audit(_own_key())
    if drift_count := services.integrity.drift():
        others.append(f"the accounting identity is off by {drift_count}: the ledger accepted another number of episodes than there are")
    reconciliation = build_reconciliation_service(load_settings())
    # What Redis lacks is a miss, and costs one read of PostgreSQL.
    drift = reconciliation.run("working", dry_run=True, deep=True)
    others += [f"{name}: {kind} in Redis" for kind, name in drift.named if kind not in {Drift.MISSING, Drift.UNHASHED}]
    # Episodes too: a verdict says of one whose work is dead or on its way just that.
    drift = reconciliation.run("vectors", dry_run=True, deep=True)
    judged = {f"episode {verdict.episode_id}" for verdict in lost}
    others += [f"{name}: its vector is {kind}" for kind, name in drift.named if name not in judged]
    return summary, lost, others


def _own_key() -> bytes | None:
    """Return the public key that this installation signs with; None where its secret is not at hand."""
    try:
        return Signer(load_settings().secret(LEDGER_KEY_SECRET)).public_key
    except ConfigurationError as error:
        click.echo(f"warning: {error.message}: whether the heads are signed with this installation's key is not checked", err=True)
        return None


def _steps(claims: list[ReceiptClaim]) -> Iterator[list[ReceiptClaim]]:
    for start in range(0, len(claims), _RECEIPTS_A_STEP):
        yield claims[start : start + _RECEIPTS_A_STEP]


def _print_summary(summary: Counter[str], lost: list[Verdict]) -> None:
    table = make_table("verdict", numeric("episodes"))
    for word, count in summary.most_common():
        table.add_row(word, f"{count:,}")
    print_table(table)
    for verdict in lost:
        click.echo(f"{verdict.episode_id} seq {verdict.seq}: {verdict.verdict}: {verdict.detail}", err=True)


@integrity.command(examples=["integrity seal", "integrity seal --everything"])
@click.option("--everything", is_flag=True, help="Seal the rest too, however few entries it has.")
@json_option
def seal(everything: bool, as_json: bool) -> None:
    """Seal what is settled of the ledger.

    It is done by itself every minute, for what is full or an hour old.
    """
    open_services().close()
    sealed = build_sealing_service(load_settings()).seal(everything=everything)
    if as_json:
        print_json(sealed)
        return
    click.echo(f"{sealed.ranges} ranges sealed, {sealed.waiting} entries wait")


@integrity.command(
    exits={1: "Something is not as it was sealed (named on stderr), or another error."},
    examples=["integrity audit", "integrity audit heads.json"],
)
@click.argument(
    "kept",
    metavar="HEADS",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=False,
    help="What `integrity heads` printed earlier, kept where nobody of the database could change it.",
)
@json_option
def audit(kept: Path | None, as_json: bool) -> None:
    """Read the sealed ledger again and compare it with its heads, and these with heads that were kept.

    Whoever may delete heads can have the ledger sealed anew as it is then: only heads that were kept elsewhere tell.
    """
    service = open_services().proofs
    problems = service.audit(_own_key(), _read_heads(kept) if kept is not None else ())
    sealed = len(service.heads().heads)
    if as_json:
        print_json({"heads": sealed, "problems": problems})
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        sys.exit(1)
    if not as_json:
        click.echo(
            f"{sealed} heads: the sealed ledger is as it was sealed" if sealed else "nothing is sealed yet, so there is nothing to check"
        )


@integrity.command(examples=["integrity heads > heads.json"], without_json="it always prints JSON")
def heads() -> None:
    """Print every signed head as JSON, for check-offline.

    Publish it where nobody can change it unseen.
    """
    print_json({"heads": [head_to_json(signed) for signed in open_services().proofs.heads().heads]})


@integrity.command(
    exits={1: "A receipt has no proof yet (named on stderr), or another error."},
    examples=["integrity prove receipts.ndjson > proofs.ndjson"],
    without_json="it always prints JSON, one object a line",
)
@_receipts_file
def prove(receipts: TextIO) -> None:
    """Print each receipt of a file with its proof, one a line, for check-offline."""
    service = open_services().proofs
    without = 0
    for receipt in _receipts(receipts):
        claim = _claim(receipt)
        try:
            proof = proof_to_json(service.prove(None, claim.episode_id, claim.version))
        except NexusError as error:
            without += 1
            click.echo(f"{claim.episode_id} version {claim.version}: {error.message}", err=True)
            continue
        print_json({**receipt, "proof": proof})
    if without:
        sys.exit(1)


@integrity.command(
    "check-offline",
    exits={1: "A receipt is not proved (named on stderr), there is none, or another error."},
    examples=["integrity check-offline proofs.ndjson heads.json --public-key HEX"],
)
@_receipts_file
@click.argument(
    "heads_file", metavar="HEADS", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="What `integrity heads` printed."
)
@click.option("--public-key", default=None, metavar="HEX", help="The key that you trust; that of the first head if not given.")
@json_option
def check_offline(receipts: TextIO, heads_file: Path, public_key: str | None, as_json: bool) -> None:
    """Check receipts with their proofs against signed heads; needs no database.

    Proved are a receipt's episode_id, version, content_sha256 and nonce; its seq, agent_id and created_at are the service's word.
    """
    chain = _read_heads(heads_file)
    try:
        trusted = None if public_key is None else bytes.fromhex(public_key)
    except ValueError as error:
        raise InvalidRequest("--public-key must be 64 hex digits") from error
    if trusted is None:
        click.echo("warning: without --public-key, whoever made the heads is trusted; give the key that was published", err=True)
    problems = check_chain(chain, trusted)
    checked = 0
    for receipt in _receipts(receipts):
        checked += 1
        proof = receipt.get("proof")
        reason = "it has no proof; `integrity prove` adds it" if proof is None else check_receipt(receipt, proof, chain)
        if reason is not None:
            problems.append(f"{receipt['episode_id']} version {receipt['version']}: {reason}")
    if not checked:
        problems.append(f"{receipts.name} holds no receipt, so nothing is proved")
    if as_json:
        print_json({"receipts": checked, "heads": len(chain), "problems": problems})
    else:
        for problem in problems:
            click.echo(problem, err=True)
        click.echo(f"{checked} receipts, {len(chain)} heads, {len(problems)} problems")
    if problems:
        sys.exit(1)


def _read_heads(file: Path) -> list[SignedHead]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_object)
        return [head_from_json(one) for one in (value["heads"] if isinstance(value, dict) else value)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidRequest(f"{file} does not hold heads as `integrity heads` prints them") from error
