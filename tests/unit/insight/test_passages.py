from __future__ import annotations

import pytest

from docmill.insight.passages import Passages, sentences, words

SOURCE = [
    "The harbour was quiet that winter, and no letters came.",
    "Her brother kept the accounts of the fishing company.",
    "In spring the fleet sailed for the northern banks.",
    "The company failed because its accounts were false.",
    "Nobody in the village spoke of the accounts again.",
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('One. Two? "Three!" Four', ["One.", "Two?", '"Three!"', "Four"]),
        ("A heading\n\nA text of 3.5 m. End", ["A heading", "A text of 3.5 m.", "End"]),
        (
            "Shown:\n\n1. The first. More.\n2. The second\n- third",
            ["Shown:", "1. The first.", "More.", "2. The second", "- third"],
        ),
        ("東京。大阪。 名古屋", ["東京。", "大阪。", "名古屋"]),
        (" \n\n ", []),
    ],
)  # fmt: skip
def test_sentences_have_their_position(text: str, expected: list[str]) -> None:
    found = sentences(text, offset=100)
    assert [sentence.text for sentence in found] == expected
    assert [text[sentence.start - 100 : sentence.end - 100] for sentence in found] == expected


def test_words_are_normalized_and_scripts_without_spaces_are_compared_by_pairs_of_characters() -> None:
    assert words("Don't STOP, Ｗｏｒｌｄ 3rd") == ["don't", "stop", "world", "3rd"]  # noqa: RUF001
    assert words("Straße ПРИВЕТ café") == ["strasse", "привет", "café"]
    assert words("東京タワー x") == ["東京", "京タ", "タワ", "ワー", "x"]


def test_a_copied_sentence_scores_one_and_a_shortened_one_is_found_first() -> None:
    passages = Passages(SOURCE)
    exact = passages.best(SOURCE[2], limit=1, min_score=0.1)
    assert (exact[0].index, round(exact[0].score, 6)) == (2, 1.0)
    short = passages.best("The fishing company failed, its accounts false.", limit=3, min_score=0.1)
    assert short[0].index == 3
    assert [match.score for match in short] == sorted((match.score for match in short), reverse=True)


def test_frequent_words_count_less_than_rare_ones() -> None:
    texts = [f"the company wrote a report on {place}" for place in ("ice", "salt", "rope", "tar")]
    best = Passages(texts).best("the company and its rope", limit=4, min_score=0.0)
    assert best[0].index == 2
    assert best[0].score > 2 * best[1].score


def test_an_invented_word_lowers_the_score() -> None:
    passages = Passages(SOURCE)
    said = passages.best("The harbour was quiet that winter.", limit=1, min_score=0.0)[0]
    invented = passages.best("The harbour was quiet that dreadful winter.", limit=1, min_score=0.0)[0]
    assert said.index == invented.index == 0
    assert invented.score < said.score


def test_no_common_word_is_no_match() -> None:
    assert Passages(SOURCE).best("Quantum chromodynamics", limit=3, min_score=0.1) == []
    assert Passages(SOURCE).best("?!", limit=3, min_score=0.1) == []
    assert Passages([]).best("anything", limit=3, min_score=0.1) == []
