import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqnorm import make_norm
from seqnorm.kinds import (
    BACKGROUND,
    KIND_HELP,
    NORM_KINDS,
    PLACES,
    VARIANTS,
    NormChoice,
    parse_choice,
    parse_norm,
)

choices = st.builds(
    NormChoice,
    kind=st.sampled_from(["layer", "batch", "group:1", "group:16", "none", "rms"]),
    place=st.sampled_from(list(PLACES)),
    variant=st.sampled_from([None, "again"]),
)


@given(choices)
def test_a_name_says_what_its_parts_say(choice: NormChoice) -> None:
    variant = f"+{choice.variant}" if choice.variant else ""
    assert parse_choice(f"{choice.kind}@{choice.place}{variant}") == choice
    assert parse_choice(choice.name) == choice


@pytest.mark.parametrize(
    ("text", "choice", "trained"),
    [
        ("batch", ("batch", "every", None), "batch"),
        ("batch@every", ("batch", "every", None), "batch"),
        ("batch+adapted", ("batch", "every", "adapted"), "batch"),
        ("batch@head+adapted", ("batch", "head", "adapted"), "batch@head"),
        ("batch+again", ("batch", "every", "again"), "batch+again"),
        ("group:8@head", ("group:8", "head", None), "group:8@head"),
        ("instance@input", ("instance", "input", None), "instance@input"),
        ("background@first", ("background", "first", None), "background@first"),
        ("background@first+again", ("background", "first", "again"), "background@first+again"),
    ],
)
def test_what_is_trained_is_the_name_without_what_comes_after_training(
    text: str, choice: tuple[str, str, str | None], trained: str
) -> None:
    assert parse_choice(text) == choice
    assert parse_choice(text).trained == trained
    assert parse_choice(trained).trained == trained


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bacth@first", "unknown norm 'bacth'; did you mean 'batch'"),
        ("backgroud@first", "did you mean 'background'"),
        ("", "unknown norm ''"),
        ("@first", "unknown norm ''"),
        ("+again", "unknown norm ''"),
        ("layer@", "norm 'layer@': no '@'; Valid: @input, @first, @every, @head"),
        ("layer@frist", "no '@frist'; did you mean '@first'"),
        ("layer@first@head", "no '@first@head'"),
        ("layer+", r"no '\+'; Valid: \+adapted, \+again"),
        ("layer+agian", r"did you mean '\+again'"),
        ("layer+again@first", r"no '\+again@first'"),
        ("layer+adapted", "only statistics of batch can be adapted"),
        ("background@first+adapted", "only statistics of batch can be adapted"),
        ("group@first", "must name its number of groups"),
        ("group:0@first", "must name its number of groups"),
        ("background", "first convolution and stands nowhere else; write 'background@first'"),
        ("background@head+again", r"nowhere else; write 'background@first\+again'"),
        ("background:2@first", "unknown norm 'background:2'"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as raised:
        parse_choice(text)
    assert "\n" not in str(raised.value)


def test_background_is_a_kind_but_none_that_is_built_alone() -> None:
    assert set(KIND_HELP) - set(NORM_KINDS) == {BACKGROUND}
    for build in (parse_norm, lambda kind: make_norm(kind, 4)):
        with pytest.raises(ValueError, match=r"'background@first' .* seqnorm.BackgroundNorm\(conv"):
            build("background")


def test_a_layer_takes_no_place_and_no_variant() -> None:
    for text in ("layer@first", "batch+adapted"):
        with pytest.raises(ValueError, match="unknown norm"):
            parse_norm(text)
    assert all(help_ for help_ in (*PLACES.values(), *VARIANTS.values()))
