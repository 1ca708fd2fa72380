"""Who may ask the page what, and what a body may hold."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from services.contract.errors import InvalidInput
from services.page.settings import Settings
from services.page.visitors import fields, known_names, refused_host, refused_origin

NAMES = known_names("localhost, 127.0.0.1,[::1],Recloop.Example")


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:7080", "LOCALHOST:1", "127.0.0.1:7080", "[::1]:7080", "recloop.example"]
)
def test_the_page_answers_under_its_names(host):
    assert refused_host(host, NAMES) == ""


@pytest.mark.parametrize(
    "host", ["", "evil.example", "localhost.evil.example:7080", "127.0.0.1.nip.io", "[::2]:7080"]
)
def test_a_name_that_was_made_to_point_here_is_refused(host):
    assert "not known as" in refused_host(host, NAMES)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://localhost:7080"},
        {"Origin": "https://localhost:7080", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://LOCALHOST:7080"},
    ],
)
def test_the_page_itself_and_what_is_no_browser_may_post(headers):
    assert refused_origin(headers, "localhost:7080") == ""


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "http://localhost:8080"},
        {"Origin": "http://127.0.0.1:7080"},
        {"Origin": "null"},
        {"Origin": "file://localhost:7080"},
        {"Origin": ""},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:7080"},
    ],
)
def test_other_sites_may_not(headers):
    assert refused_origin(headers, "localhost:7080")


ALLOWED = {"name": str, "on": bool, "n": int}


def test_a_body_gives_its_fields():
    assert fields(b'{"name": "bots", "on": true}', ALLOWED) == {"name": "bots", "on": True}
    assert fields(b"{}", ALLOWED) == {}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "body=: a JSON object"),
        (b"\xff\xfe", "a JSON object"),
        (b"[1]", "body=list: a JSON object"),
        (b"null", "body=NoneType"),
        (b'{"nam": "x"}', "nam=given: one of name, on, n"),
        (b'{"name": 7, "on": 1, "n": true}', "name=7: a string; on=1: true or false; n=True: a whole number"),
        (b'{"n": 1.5}', "n=1.5: a whole number"),
        (b"[" * 2000, "a JSON object"),
    ],
)
def test_every_bad_field_of_a_body_is_named(body, said):
    with pytest.raises(InvalidInput) as refused:
        fields(body, ALLOWED)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"timeout_ms": 2_000}, "looks would overtake"),
        ({"idle_interval_ms": 1_000}, "is below interval_ms"),
        ({"web": {"port": 70_000}}, "less than or equal to 65535"),
        ({"metrics": {"nobody": "x:1"}}, "Extra inputs"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        Settings(**given)
