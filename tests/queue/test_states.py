"""The table of legal steps."""

import itertools
from pathlib import Path

import pytest

from mailrace.errors import ConflictError
from mailrace.queue.states import FINAL, STEPS, JobState, Step, after, diagram

ILLEGAL = sorted(set(itertools.product(JobState, Step)) - set(STEPS))


@pytest.mark.parametrize(("state", "step"), sorted(STEPS))
def test_a_legal_step_leads_where_the_table_says(state: JobState, step: Step) -> None:
    assert after(state, step) is STEPS[state, step]


@pytest.mark.parametrize(("state", "step"), ILLEGAL)
def test_any_other_step_is_refused(state: JobState, step: Step) -> None:
    with pytest.raises(ConflictError, match=f"{state} cannot {step}"):
        after(state, step)


def test_every_state_can_be_reached_and_every_step_is_of_use() -> None:
    assert {JobState.AVAILABLE, *STEPS.values()} == set(JobState)
    assert {step for _, step in STEPS} == set(Step)


def test_only_a_person_leads_out_of_a_final_state() -> None:
    assert {step for state, step in STEPS if state in FINAL} == {Step.REVIVE}


def test_the_diagram_in_the_docs_is_this_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "architecture.md"
    _, _, block = page.read_text(encoding="utf-8").partition("<!-- states -->\n```mermaid\n")
    assert block.partition("\n```\n")[0] == diagram()
