import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrace.mail.providers.smtp.states import STEPS, IllegalStepError, Machine, State, Step


def test_the_table_is_whole() -> None:
    assert set(STEPS) == set(State)
    reachable = {State.GREETING} | {to for steps in STEPS.values() for to in steps.values()}
    assert reachable == set(State)
    assert {step for steps in STEPS.values() for step in steps} == set(Step)


def test_every_state_can_lose_the_connection_and_nothing_leaves_closed() -> None:
    assert all(steps[Step.LOSE] is State.CLOSED for steps in STEPS.values())
    assert set(STEPS[State.CLOSED].values()) == {State.CLOSED}


@given(st.lists(st.sampled_from(Step)))
def test_an_illegal_step_raises_and_changes_nothing(steps: list[Step]) -> None:
    machine = Machine()
    for step in steps:
        before = machine.state
        if step in STEPS[before]:
            machine.take(step)
            assert machine.state is STEPS[before][step]
        else:
            with pytest.raises(IllegalStepError):
                machine.take(step)
            assert machine.state is before
