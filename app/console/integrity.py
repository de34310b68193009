"""Whether everything that was accepted is accounted for, how far the ledger is sealed, and what reconciliation found."""

from flask import Response
from flask_openapi3.blueprint import APIBlueprint

from app.api.services import services
from app.console import pages

blueprint = APIBlueprint("integrity", __name__, doc_ui=False)

_RUNS = 20
_HEADS = 5


@blueprint.get("/integrity")
def show_integrity() -> Response:
    """Show all of it."""
    heads = [signed.head for signed in services().proofs.heads().heads]
    return pages.page(
        "integrity.html",
        identity=services().integrity.identity(),
        semantic=services().integrity.semantic_identity(),
        heads=heads[: -_HEADS - 1 : -1],
        ranges=len(heads),
        runs=services().reconciliation_runs.latest(_RUNS),
        recall=services().stats.recall(),
    )
