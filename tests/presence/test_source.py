"""Back-off and errors: pure, no I/O."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from router.presence.source import LONGEST_BACKOFF, ErrorCode, SourceError, SourceSettings, backoff

POLL = timedelta(seconds=2)
TIMED_OUT = SourceError(ErrorCode.TIMEOUT, "Asked for the online logins, the API did not answer in time.")


def wait(failures: int, jitter: float, error: SourceError = TIMED_OUT) -> float:
    return backoff(failures, error=error, base=POLL, jitter=jitter).total_seconds()


def test_backoff_spreads_evenly_below_a_ceiling_that_doubles() -> None:
    assert [wait(n, 0.0) for n in (1, 2, 3)] == [2, 2, 2]
    assert [wait(n, 0.5) for n in (1, 2, 3)] == [3, 5, 9]
    assert [wait(n, 0.999) for n in (1, 2, 3)] == [3.998, 7.994, 15.986]


def test_backoff_is_capped_after_weeks_of_failures_and_for_a_refused_key_too() -> None:
    refused = SourceError(ErrorCode.UNAUTHORIZED, "Asked for the online logins, the API did not accept the Auth-key.")
    assert wait(5, 0.5) == wait(1_000_000, 0.5) == wait(1_000_000, 0.5, refused) == 31


def test_backoff_keeps_the_wait_that_the_api_asked_for_when_it_is_longer() -> None:
    def asked(seconds: int) -> SourceError:
        return SourceError(ErrorCode.RATE_LIMITED, "Slow down.", retry_after=timedelta(seconds=seconds))

    assert wait(1, 0.5, asked(300)) == 301
    assert wait(5, 0.5, asked(7)) == 31


@given(
    failures=st.integers(1, 10**9),
    base=st.timedeltas(timedelta(seconds=0.1), timedelta(hours=1)),
    jitter=st.floats(0, 1, exclude_max=True),
    retry_after=st.none() | st.timedeltas(timedelta(0), timedelta(minutes=10)),
)
def test_backoff_never_asks_a_sick_api_more_often_than_a_healthy_one_nor_sooner_than_it_wished(
    failures: int, base: timedelta, jitter: float, retry_after: timedelta | None
) -> None:
    error = SourceError(ErrorCode.SERVER_ERROR, "It failed.", retry_after=retry_after)
    chosen = backoff(failures, error=error, base=base, jitter=jitter)
    assert chosen >= base
    assert chosen >= (retry_after or timedelta(0))
    assert chosen <= max(base, LONGEST_BACKOFF, (retry_after or timedelta(0)) + base)


def test_every_error_code_has_its_words_and_a_remedy() -> None:
    assert all(code.words.endswith(".") and code.help.endswith(".") for code in ErrorCode)


def test_settings_do_not_show_their_secrets() -> None:
    settings = SourceSettings("https://api.example", auth_key="k3y-secret", project_id="7", token="t0ken-secret")
    assert "secret" not in repr(settings)
    assert "https://api.example" in repr(settings)


def test_every_error_code_is_explained_in_the_documents() -> None:
    text = (Path(__file__).parents[2] / "docs" / "presence.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert {code for code in ErrorCode if not any(f"`{code}`" in row.split(" | ")[0] for row in rows)} == set()
