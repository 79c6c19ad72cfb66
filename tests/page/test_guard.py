import pytest

from edge_seg.page.guard import MOST_SESSIONS, SESSION_S, Guard, is_foreign

TOKEN = "a-token-of-good-length"


def test_without_a_token_everybody_on_this_machine_is_let_in() -> None:
    guard = Guard(None, "127.0.0.1")
    assert guard.lets_in(None, None, 0)
    assert not guard.needs_token
    assert guard.log_in("anything", 0) is None


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN}", True),
        (f"Bearer {TOKEN}x", False),
        ("Bearer ", False),
        ("Bearer", False),
        (f"Basic {TOKEN}", False),
        ("", False),
        (None, False),
    ],
)
def test_the_token_is_a_bearer_token(authorization: str | None, expected: bool) -> None:
    assert Guard(TOKEN, "0.0.0.0").lets_in(authorization, None, 0) == expected


def test_a_session_lets_in_until_it_ends_or_is_left() -> None:
    guard = Guard(TOKEN, "0.0.0.0")
    assert guard.log_in("wrong", 0) is None
    session = guard.log_in(TOKEN, 0)
    assert session is not None
    assert TOKEN not in session
    assert guard.lets_in(None, session, SESSION_S - 1)
    assert not guard.lets_in(None, session, SESSION_S)
    assert not guard.lets_in(None, session + "x", 1)
    guard.log_out(session)
    assert not guard.lets_in(None, session, 1)


def test_sessions_do_not_pile_up() -> None:
    guard = Guard(TOKEN, "0.0.0.0")
    sessions = [guard.log_in(TOKEN, number) for number in range(MOST_SESSIONS + 5)]
    assert sum(guard.lets_in(None, session, MOST_SESSIONS + 5) for session in sessions) == MOST_SESSIONS
    assert guard.lets_in(None, sessions[-1], MOST_SESSIONS + 5)


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:9108", True),
        ("127.0.0.1", True),
        ("localhost:1", True),
        ("LOCALHOST", True),
        ("[::1]:9108", True),
        ("camera.example", True),
        ("evil.example:9108", False),
        ("127.0.0.1.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
def test_on_loopback_only_names_of_this_machine_are_ours(host: str, known: bool) -> None:
    assert Guard(None, "127.0.0.1", ("Camera.example",)).is_known_host(host) == known


def test_beyond_loopback_the_token_stands_in_for_the_name() -> None:
    assert Guard(TOKEN, "0.0.0.0").is_known_host("whatever.example")


JSON = {"Host": "a:1", "Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "changes", "refused"),
    [
        ({"Host": "a:1"}, False, False),
        (JSON, True, False),
        ({**JSON, "Content-Type": "application/json; charset=utf-8"}, True, False),
        ({**JSON, "Origin": "http://a:1", "Sec-Fetch-Site": "same-origin"}, True, False),
        ({**JSON, "Origin": "http://b:1"}, True, True),
        ({**JSON, "Origin": "http://a:2"}, True, True),
        ({**JSON, "Origin": "null"}, True, True),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, True, True),
        ({**JSON, "Sec-Fetch-Site": "same-site"}, True, True),
        ({**JSON, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, True, True),
        ({"Host": "a:1"}, True, True),
        ({"Host": "a:1", "Content-Type": "text/plain"}, True, True),
        ({"Host": "a:1", "Content-Type": "application/x-www-form-urlencoded"}, True, True),
        # A link to the page on another page is fine; the preview as a picture in another page is not.
        ({"Host": "a:1", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, False, False),
        ({"Host": "a:1", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, False, True),
    ],
)
def test_requests_that_other_sites_make_are_refused(
    headers: dict[str, str], changes: bool, refused: bool
) -> None:
    assert (is_foreign(headers, changes=changes) is not None) == refused
