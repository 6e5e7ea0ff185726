"""Pages: sizes and tokens."""

from __future__ import annotations

import base64
import json
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduling.domain.errors import InvalidRequest
from scheduling.domain.paging import Bound, PageToken, Position, page_size

BOUND: Bound = {"parent": "jobs/-", "filter": 'state = "FAILED"', "order_by": "", "view": 1}

elements = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
)
positions = st.lists(elements, min_size=1, max_size=4).map(tuple)


def refused(text: str, bound: Bound = BOUND) -> str:
    with pytest.raises(InvalidRequest) as caught:
        PageToken.decode(text, bound)
    (violation,) = caught.value.violations
    assert violation.field == "page_token"
    return violation.reason


def packed(body: bytes) -> str:
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


def forged(content: object) -> str:
    return packed(json.dumps(content, separators=(",", ":")).encode())


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_a_page_size_is_coerced(asked: int, given_: int) -> None:
    assert page_size(asked) == given_


def test_a_negative_page_size_is_refused() -> None:
    with pytest.raises(InvalidRequest) as caught:
        page_size(-1)
    assert caught.value.violations[0].field == "page_size"


def test_no_token_means_the_first_page() -> None:
    assert PageToken.decode("", BOUND) is None


@given(positions)
def test_a_token_survives_its_text(position: Position) -> None:
    text = PageToken(position).encode(BOUND)
    assert PageToken.decode(text, dict(sorted(BOUND.items()))) == PageToken(position)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@pytest.mark.parametrize("other", [{**BOUND, "filter": ""}, {**BOUND, "view": 2}, {**BOUND, "view": "1"}, {}])
def test_a_token_of_other_arguments_is_refused(other: Bound) -> None:
    assert refused(PageToken((1, "a")).encode(BOUND), other) == "PAGE_TOKEN_MISMATCH"


def test_a_malformed_token_is_refused() -> None:
    good = PageToken((1, "a")).encode(BOUND)
    digest = json.loads(base64.urlsafe_b64decode(good + "=" * (-len(good) % 4)))[1]
    assert PageToken.decode(forged([1, digest, 1, "a"]), BOUND) == PageToken((1, "a"))
    wrong_text = ["x", "é", "====", good + "=", good[:-1], good + "A", " " + good, "A" * 1001]
    wrong_json = [b"[" * 700, b"\xff", json.dumps([1, digest, 1]).encode()]
    wrong_content: list[object] = [
        {}, [], [1], [1, digest], [2, digest, 1], [1, digest, 2**63], [1, digest, True], [1, digest, 1.5],
        [1, digest, [1]], [1, digest, "\0"], [1, digest, "\ud800"],
    ]  # fmt: skip
    wrong = [*wrong_text, *(packed(body) for body in wrong_json), *(forged(content) for content in wrong_content)]
    assert {refused(text) for text in wrong} == {"INVALID_PAGE_TOKEN"}


@given(st.one_of(st.text(max_size=1200), st.binary(max_size=300).map(lambda b: base64.urlsafe_b64encode(b).decode())))
def test_decoding_answers_or_refuses_but_never_crashes(text: str) -> None:
    try:
        token = PageToken.decode(text, BOUND)
    except InvalidRequest as error:
        fields = [violation.field for violation in error.violations]
    else:
        assert token is None
        fields = ["page_token"]
    assert fields == ["page_token"]


def test_reading_a_forged_position_is_refused() -> None:
    def parse(position: Position) -> tuple[int, UUID]:
        moment, uid = position
        return int(moment or 0), UUID(str(uid))

    assert PageToken((7, "00000000-0000-7000-8000-000000000000")).read(parse)[0] == 7
    for position in [(7,), (7, "x"), ("x", "x"), (7, None)]:
        with pytest.raises(InvalidRequest):
            PageToken(position).read(parse)


@pytest.mark.parametrize("position", [(), (True,), (2**63,), ("x" * 1000,), ("\0",)])
def test_a_position_that_cannot_be_a_token_is_a_mistake_of_the_caller(position: Position) -> None:
    with pytest.raises(ValueError, match="position"):
        PageToken(position).encode(BOUND)
