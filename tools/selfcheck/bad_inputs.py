"""All bad inputs."""

from tools.selfcheck.bad_data import BAD_DATA
from tools.selfcheck.bad_models import BAD_MODELS
from tools.selfcheck.bad_options import BAD_OPTIONS
from tools.selfcheck.bad_results import BAD_RESULTS
from tools.selfcheck.odd_inputs import ODD_INPUTS
from tools.selfcheck.odd_results import ODD_RESULTS

GROUPS = {
    "models": BAD_MODELS,
    "data": BAD_DATA,
    "options": BAD_OPTIONS,
    "results": BAD_RESULTS,
    "field": [*ODD_INPUTS, *ODD_RESULTS],
}
CASES = {f"{group}: {case.name}": case for group, cases in GROUPS.items() for case in cases}
