"""Which accounts a load is about: those that are stored, and the one of spec pulls' variables."""

from dataclasses import dataclass

from loaders.registry import SOURCES, source
from stageline.config import settings
from stageline.database import connect
from stageline.errors import StagelineError
from stageline.settings import api_accounts
from stageline.settings.api_accounts import BASE_URLS, ApiAccount

#: Project of the account that the variables describe.
OF_VARIABLES = "default"


@dataclass(frozen=True)
class Chosen:
    """An account to be loaded."""

    source_name: str
    project_id: str
    account: ApiAccount


def chosen(source_name: str, project_id: str | None) -> list[Chosen]:
    """The accounts of a source: that of a project, or all there are.

    Raises:
        StagelineError: there is none, or what the variables say of it does not fit.
    """
    source(source_name)
    with connect("loader") as session:
        stored = [
            row.project_id for row in api_accounts.accounts() if row.source_system == source_name
        ]
        wanted = [each for each in stored if project_id in (None, each)]
        found = [
            Chosen(source_name, each, api_accounts.get(session, source_name, each))
            for each in wanted
        ]
    if not found and project_id in (None, OF_VARIABLES):
        found = _of_variables(source_name)
    if found:
        return found
    if project_id is not None and stored:
        raise StagelineError(
            f"{source_name} has no account for project {project_id}. There are:"
            f" {', '.join(stored)}."
        )
    name = project_id or "main"
    raise StagelineError(
        f"No account of {source_name} is set up. Run `stageline projects add {source_name} {name}`"
        f" and `stageline projects api {source_name} {name}`, or set SALES_PIPELINE_SOURCE and"
        " SALES_PIPELINE_API_KEY."
    )


def _of_variables(source_name: str) -> list[Chosen]:
    """The account that the variables describe, if it is one of the source."""
    given = settings()
    if given.sales_pipeline_source is None:
        return []
    if given.sales_pipeline_source not in SOURCES:
        raise StagelineError(
            f"SALES_PIPELINE_SOURCE is {given.sales_pipeline_source!r}, which is no source."
            f" There are: {', '.join(SOURCES)}."
        )
    if given.sales_pipeline_source != source_name:
        return []
    key = given.sales_pipeline_api_key
    if key is None or not key.get_secret_value().strip():
        raise StagelineError(
            f"SALES_PIPELINE_SOURCE is {source_name}, but SALES_PIPELINE_API_KEY is not set."
            " Set it to the token of the API."
        )
    token = api_accounts.require_token(key.get_secret_value().strip(), "SALES_PIPELINE_API_KEY")
    base_url = _base_url(source_name, given.sales_pipeline_endpoint)
    return [Chosen(source_name, OF_VARIABLES, ApiAccount(base_url, token))]


def _base_url(source_name: str, endpoint: str | None) -> str:
    if endpoint is None:
        if source_name in BASE_URLS:
            return BASE_URLS[source_name]
        raise StagelineError(
            f"Where the API of {source_name} is, differs from account to account."
            " Set SALES_PIPELINE_ENDPOINT."
        )
    path = source(source_name).api_path
    return api_accounts.require_url(
        endpoint.split(path)[0] if path else endpoint, name="SALES_PIPELINE_ENDPOINT"
    )
